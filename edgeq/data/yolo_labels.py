"""One YOLO label file: rows ``class cx cy w h`` in fractions of the image, or polygons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeq.data.files import read_text
from edgeq.data.images import image_size
from edgeq.errors import DataError
from edgeq.types import DetectionTruth

__all__ = ["LabelRules", "Labels", "read_labels"]

_TOLERANCE = 0.01
"""Coordinates may leave 0..1 by this much (rounding of the exporters); boxes are clipped."""

_Row = tuple[int, float, float, float, float]
"""Class id and x1, y1, x2, y2 in fractions."""


@dataclass(frozen=True)
class LabelRules:
    """What holds for all label files of a data set."""

    class_count: int | None
    """None: unknown, any id from 0 is fine."""
    keypoints: bool = False
    """Pose labels: key points follow the box and are ignored."""


@dataclass(frozen=True)
class Labels:
    """What a label file says."""

    truth: DetectionTruth | None
    """None: the image cannot be read, so its boxes have no size in pixels."""
    missing: bool = False
    """There is no label file."""
    oddities: tuple[str, ...] = ()
    """Rows left out, with the reason: repeated or without area."""


def read_labels(image: Path, labels: Path, rules: LabelRules, *, tolerant: bool) -> Labels:
    """Labels of one image.

    Args:
        image: the image; only its header is read.
        labels: the label file; it may be missing.
        rules: number of classes and kind of rows.
        tolerant: an unreadable image gives no truth instead of an error.

    Raises:
        DataError: a row is wrong (names file, line and how to mend it), or the image is unreadable.
    """
    try:
        text = read_text(labels)
    except DataError:
        if labels.exists():
            raise
        return Labels(_truth([], 0, 0), missing=True)
    rows: list[_Row] = []
    oddities: list[str] = []
    seen: set[_Row] = set()
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        row = _row(fields, rules, f"{labels} line {number}")
        if row in seen or row[1] >= row[3] or row[2] >= row[4]:
            oddities.append(f"{labels.name} line {number} ({'repeated' if row in seen else 'no area'})")
            continue
        seen.add(row)
        rows.append(row)
    if not rows:
        return Labels(_truth([], 0, 0), oddities=tuple(oddities))
    try:
        width, height = image_size(image)
    except DataError:
        if not tolerant:
            raise
        return Labels(None, oddities=tuple(oddities))
    return Labels(_truth(rows, width, height), oddities=tuple(oddities))


def _row(fields: list[str], rules: LabelRules, place: str) -> _Row:
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise DataError(
            f"{place}: not all of {' '.join(fields)[:60]!r} are numbers",
            fix="a row is  class cx cy w h  with a class id and fractions of the image",
        ) from error
    class_id = _class_id(values[0], rules.class_count, place)
    coordinates = values[1:5] if rules.keypoints else values[1:]
    _check_count(len(values), rules, place)
    for value in coordinates:
        # Written so that nan fails too.
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
            raise _out_of_range(value, place)
    if len(coordinates) > 4:
        xs, ys = coordinates[0::2], coordinates[1::2]
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    else:
        cx, cy, w, h = coordinates
        if w < 0 or h < 0:
            raise DataError(f"{place}: width or height is negative", fix="a row is  class cx cy w h")
        x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    return (class_id, max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0))


def _class_id(value: float, class_count: int | None, place: str) -> int:
    if not math.isfinite(value) or value != int(value):
        raise DataError(
            f"{place}: the class id {value:g} is not a whole number", fix="a row is  class cx cy w h"
        )
    if value < 0 or (class_count is not None and value >= class_count):
        limit = f"0 to {class_count - 1}" if class_count is not None else "0 and up"
        raise DataError(
            f"{place}: class id {int(value)} is out of range; the data set has {limit}",
            fix="correct the id (they count from 0), or add the class to names in data.yaml",
        )
    return int(value)


def _check_count(count: int, rules: LabelRules, place: str) -> None:
    if count == 5 or (rules.keypoints and count > 5) or (not rules.keypoints and count >= 7 and count % 2):
        return
    hint = " (a sixth column is often a prediction's confidence)" if count == 6 else ""
    raise DataError(
        f"{place}: {count} columns{hint}",
        fix="a row is  class cx cy w h,  or  class x1 y1 x2 y2 x3 y3 ...  for a polygon",
    )


def _out_of_range(value: float, place: str) -> DataError:
    return DataError(
        f"{place}: the coordinate {value:g} is outside of 0..1",
        fix="YOLO labels are fractions: divide pixels by the width or height of the image",
    )


def _truth(rows: list[_Row], width: int, height: int) -> DetectionTruth:
    table = np.array(rows, np.float64).reshape(-1, 5)
    boxes = table[:, 1:] * np.array([width, height, width, height], np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return DetectionTruth(
        boxes_xyxy=boxes.astype(np.float32),
        class_ids=table[:, 0].astype(np.int64),
        crowd=np.zeros(len(rows), np.bool_),
        area_px2=area,
    )
