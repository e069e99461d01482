"""COCO's detection metrics, by faster-coco-eval from data in memory: no files, no output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import DataError, UnavailableError
from edgeq.types import Detections, DetectionTruth

__all__ = ["ClassPrecision", "DetectionMetrics", "score_detections"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassPrecision:
    """Average precision of one class, 0..1; None where the data set has no labelled box of it."""

    name: str
    box_count: int
    """Labelled boxes, crowds not counted."""
    map50_95: float | None
    map50: float | None


@dataclass(frozen=True)
class DetectionMetrics:
    """COCO's mean average precisions, 0..1, at most 100 detections of a class in an image."""

    map50_95: float
    map50: float
    map75: float
    map_small: float | None
    """Boxes of less than 32 x 32 pixels; None where there are none."""
    map_medium: float | None
    map_large: float | None
    """Boxes of 96 x 96 pixels and more; None where there are none."""
    per_class: tuple[ClassPrecision, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, names with the vocabulary's spelling."""
        return {
            "map50_95": self.map50_95,
            "map50": self.map50,
            "map75": self.map75,
            "map_small": self.map_small,
            "map_medium": self.map_medium,
            "map_large": self.map_large,
            "per_class": [
                {"name": c.name, "box_count": c.box_count, "map50_95": c.map50_95, "map50": c.map50}
                for c in self.per_class
            ],
        }


def score_detections(
    detections: Sequence[Detections], truths: Sequence[DetectionTruth], *, class_names: Sequence[str]
) -> DetectionMetrics:
    """COCO metrics of images in a fixed order; crowds and areas are honoured.

    Raises:
        DataError: no image has a labelled box.
        UnavailableError: faster-coco-eval is not installed.
    """
    counts = _box_counts(truths, len(class_names))
    if counts.sum() == 0:
        raise DataError(
            "none of the images has a labelled box, so there is no mAP", fix="check the labels' paths"
        )
    precision = _precision(detections, truths, class_names)
    overall = precision[..., 0]
    per_class = tuple(
        ClassPrecision(name, int(count), _mean(overall[:, :, index]), _mean(overall[0, :, index]))
        for index, (name, count) in enumerate(zip(class_names, counts, strict=True))
    )
    return DetectionMetrics(
        map50_95=_mean(overall) or 0.0,
        map50=_mean(overall[0]) or 0.0,
        map75=_mean(overall[5]) or 0.0,
        map_small=_mean(precision[..., 1]),
        map_medium=_mean(precision[..., 2]),
        map_large=_mean(precision[..., 3]),
        per_class=per_class,
    )


def _box_counts(truths: Sequence[DetectionTruth], class_count: int) -> npt.NDArray[np.int64]:
    """(nc,) labelled boxes of each class, crowds not counted."""
    wanted = [truth.class_ids[~truth.crowd] for truth in truths]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *wanted]), minlength=class_count)


def _mean(precision: FloatArray) -> float | None:
    """Mean of what is defined; COCO marks the rest with -1."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def _precision(
    detections: Sequence[Detections], truths: Sequence[DetectionTruth], class_names: Sequence[str]
) -> FloatArray:
    """(10, 101, nc, 4) precision by IoU, recall, class and area (all, small, medium, large)."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UnavailableError("mAP needs faster-coco-eval", fix="pip install 'edgeq[host]'") from error
    frame = {
        "images": [{"id": index + 1} for index in range(len(truths))],
        "categories": [{"id": index, "name": name} for index, name in enumerate(class_names)],
    }
    truth, found = COCO(), COCO()
    for side, rows in ((truth, _truth_rows(truths)), (found, _detection_rows(detections))):
        side.dataset = {**frame, "annotations": rows}
        side.createIndex()
    evaluation = COCOeval_faster(truth, found, "bbox", print_function=_quiet)
    evaluation.evaluate()
    evaluation.accumulate()
    precision: FloatArray = np.asarray(evaluation.eval["precision"])[..., -1]
    return precision


def _quiet(*_: object) -> None:
    """In place of the evaluator's print."""


def _truth_rows(truths: Sequence[DetectionTruth]) -> list[dict[str, Any]]:
    """COCO annotations; ids start at 1, since 0 means unmatched to the evaluator."""
    rows: list[dict[str, Any]] = []
    for image, truth in enumerate(truths, start=1):
        boxes = _xywh(truth.boxes_xyxy)
        for box, class_id, crowd, area in zip(
            boxes, truth.class_ids, truth.crowd, truth.area_px2, strict=True
        ):
            row = _row(len(rows) + 1, image, int(class_id), box, float(area))
            rows.append({**row, "iscrowd": int(crowd)})
    return rows


def _detection_rows(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """COCO results."""
    rows: list[dict[str, Any]] = []
    for image, found in enumerate(detections, start=1):
        boxes = _xywh(found.boxes_xyxy)
        for box, class_id, score in zip(boxes, found.class_ids, found.scores, strict=True):
            row = _row(len(rows) + 1, image, int(class_id), box, box[2] * box[3])
            rows.append({**row, "iscrowd": 0, "score": float(score)})
    return rows


def _row(row_id: int, image: int, class_id: int, box: list[float], area: float) -> dict[str, Any]:
    return {"id": row_id, "image_id": image, "category_id": class_id, "bbox": box, "area": area}


def _xywh(boxes_xyxy: npt.NDArray[np.float32]) -> list[list[float]]:
    """COCO boxes x, y, width, height."""
    boxes = boxes_xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    listed: list[list[float]] = boxes.tolist()
    return listed
