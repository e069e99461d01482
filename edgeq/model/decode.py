"""Raw outputs to detections or class scores, in numpy: the same code on the host and on the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgeq.errors import SpecError
from edgeq.model.nms import nms
from edgeq.types import (
    Detections,
    Float32Array,
    HeadFamily,
    HeadSpec,
    InputSpec,
    PostProcess,
    Prediction,
    Task,
)

__all__ = [
    "BoxMapping",
    "InputPixels",
    "cell_counts",
    "corners",
    "decode_classes",
    "decode_detections",
    "decode_outputs",
    "decode_rows",
]

RawOutputs = Mapping[str, npt.NDArray[Any]]
IntArray = npt.NDArray[np.int64]

_FARTHEST_PX = np.float32(1e6)


class BoxMapping(Protocol):
    """How one image was brought to the model's size, seen from the boxes' side."""

    def to_original(self, boxes_xyxy: Float32Array, /) -> Float32Array:
        """Boxes (n, 4) of the model's input in pixels of the original image, cut at its edges."""
        ...


class InputPixels:
    """Boxes stay in pixels of the model's input: for answers to the same tensor, compared with each other."""

    def to_original(self, boxes_xyxy: Float32Array, /) -> Float32Array:
        """Boxes (n, 4) as they are."""
        return boxes_xyxy


class _Candidates(NamedTuple):
    """What is over the confidence; one entry for each pair of box and class."""

    boxes: npt.NDArray[Any]
    """(n, 4) as the head gives them."""
    scores: npt.NDArray[Any]
    """(n,)"""
    class_ids: IntArray
    """(n,)"""
    rows: IntArray
    """(n,) position of the box in the output."""


def cell_counts(height_px: int, width_px: int, strides: Sequence[int]) -> tuple[int, ...]:
    """Number of grid cells for each stride."""
    return tuple(-(-height_px // stride) * -(-width_px // stride) for stride in strides)


def decode_outputs(
    outputs: RawOutputs, *, head: HeadSpec, spec: InputSpec, geometry: BoxMapping, post: PostProcess
) -> Prediction:
    """What the outputs of one image say: `decode_classes` of a classifier, else `decode_detections`.

    Raises:
        SpecError: the outputs do not fit the head.
    """
    if head.task is Task.CLASSIFY:
        return decode_classes(outputs, head=head)
    return decode_detections(outputs, head=head, spec=spec, geometry=geometry, post=post)


@np.errstate(over="ignore", invalid="ignore")  # what overflows is dropped below
def decode_detections(
    outputs: RawOutputs, *, head: HeadSpec, spec: InputSpec, geometry: BoxMapping, post: PostProcess
) -> Detections:
    """Detections of one image, best score first.

    The confidence is applied before anything is computed, NMS in the model's input, where boxes are not yet
    cut at the image's edges; only what is left is brought to the original image. A box or a score that is
    not finite counts as no detection.

    Args:
        outputs: the model's outputs by name; the one that ``head`` names is read.
        head: a detection head.
        spec: the input that the outputs belong to.
        geometry: leads back to the original image.
        post: confidence, NMS and limits.

    Raises:
        SpecError: the outputs do not fit the head.
    """
    raw = _predictions(outputs, head=head)
    _check_grid(raw, head=head, spec=spec)
    if head.family is HeadFamily.END_TO_END:
        found = _end_to_end(raw, head=head, confidence=post.confidence)
    elif head.family is HeadFamily.YOLOV8:
        found = _over_confidence(raw[4:], raw[:4].T, post=post)
    else:
        found = _with_objectness(raw, post=post)
    found = _strongest(found, limit=post.max_candidates)
    boxes = _input_boxes(found, head=head, spec=spec)
    scores = found.scores.astype(np.float32)
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    # Far beyond any image, but areas and scaled coordinates stay finite.
    boxes = np.clip(boxes[finite], -_FARTHEST_PX, _FARTHEST_PX)
    scores, class_ids = scores[finite], found.class_ids[finite]
    if head.family is HeadFamily.END_TO_END:
        keep = np.argsort(-scores, kind="stable")[: post.max_detections]
    else:
        keep = nms(boxes, scores, class_ids, iou=post.iou, max_detections=post.max_detections)
    return Detections(
        boxes_xyxy=np.asarray(geometry.to_original(boxes[keep]), dtype=np.float32),
        scores=scores[keep],
        class_ids=class_ids[keep],
    )


@np.errstate(over="ignore", invalid="ignore")
def decode_rows(outputs: RawOutputs, *, head: HeadSpec, spec: InputSpec) -> tuple[Float32Array, Float32Array]:
    """Every row of the output, whatever its score: boxes (n, 4) x1, y1, x2, y2 in pixels of the model's
    input and scores (n, nc).

    Two models of the same graph give the same rows, so they can be compared row by row; those of an
    end-to-end head are sorted by score and cannot.

    Raises:
        SpecError: the outputs do not fit the head, or it is an end-to-end head.
    """
    raw = _predictions(outputs, head=head)
    _check_grid(raw, head=head, spec=spec)
    if head.family is HeadFamily.END_TO_END:
        raise SpecError("rows of an end-to-end head are sorted by score")
    if head.family is HeadFamily.YOLOV8:
        boxes, scores = raw[:4].T, raw[4:].T
    else:
        boxes, scores = raw[:, :4], raw[:, 5:] * raw[:, 4:5]
    rows = np.arange(len(boxes))
    found = _Candidates(boxes, scores[:, 0], np.zeros_like(rows), rows)
    return _input_boxes(found, head=head, spec=spec), np.asarray(scores, np.float32)


def decode_classes(outputs: RawOutputs, *, head: HeadSpec) -> Float32Array:
    """Class scores (nc,) of one image, logits or probabilities as the model gives them.

    A score that is not finite becomes the lowest float, so that it never wins.

    Raises:
        SpecError: the outputs do not fit the head.
    """
    scores = _named_output(outputs, head=head).astype(np.float32).reshape(-1)
    if len(scores) != head.class_count:
        raise SpecError(
            f"output {head.output!r} has {len(scores)} class scores, the head has {head.class_count} classes"
        )
    return np.where(np.isfinite(scores), scores, np.finfo(np.float32).min)


def _named_output(outputs: RawOutputs, *, head: HeadSpec) -> npt.NDArray[Any]:
    """The array that the head names."""
    if head.output not in outputs:
        raise SpecError(f"the model has no output {head.output!r}, only {', '.join(map(repr, outputs))}")
    return outputs[head.output]


def _predictions(outputs: RawOutputs, *, head: HeadSpec) -> npt.NDArray[Any]:
    """The head's output without its batch axis, as the family has it: (n, 5 + nc), (4 + nc, n) or (k, 6)."""
    array = _named_output(outputs, head=head)
    channels = {HeadFamily.YOLOV8: 4 + head.class_count, HeadFamily.END_TO_END: 6}.get(
        head.family, 5 + head.class_count
    )
    if head.task is not Task.DETECT:
        raise SpecError(f"a {head.family.value} head gives classes, not boxes")
    if array.ndim == 3 and array.shape[0] == 1:
        table: npt.NDArray[Any] = array[0]
        axis = 0 if head.family is HeadFamily.YOLOV8 else 1
        if table.shape[axis] == channels:
            return table
        if table.shape[1 - axis] == channels and head.family is not HeadFamily.END_TO_END:
            flipped: npt.NDArray[Any] = table.T
            return flipped
    raise SpecError(
        f"output {head.output!r} of shape {array.shape} does not fit a {head.family.value} head "
        f"with {head.class_count} classes ({channels} values per box)"
    )


def _check_grid(raw: npt.NDArray[Any], *, head: HeadSpec, spec: InputSpec) -> None:
    """Raise SpecError where undecoded boxes cannot be told their cells."""
    cells = sum(cell_counts(spec.height_px, spec.width_px, head.strides))
    if head.family is HeadFamily.YOLOX and len(raw) != cells:
        raise SpecError(
            f"output {head.output!r} has {len(raw)} boxes, but a {spec.height_px} x {spec.width_px} input "
            f"with strides {list(head.strides)} has {cells} cells"
        )


def _with_objectness(raw: npt.NDArray[Any], *, post: PostProcess) -> _Candidates:
    """Candidates of (n, 5 + nc); a class score is at most 1, so the objectness alone rules most boxes out."""
    rows = np.flatnonzero(raw[:, 4] > post.confidence)
    part = raw[rows]
    found = _over_confidence((part[:, 5:] * part[:, 4:5]).T, part[:, :4], post=post)
    return found._replace(rows=rows[found.rows])


def _over_confidence(scores: npt.NDArray[Any], boxes: npt.NDArray[Any], *, post: PostProcess) -> _Candidates:
    """Candidates of scores (nc, n) and boxes (n, 4); NaN is never over the confidence."""
    if post.multi_label:
        class_ids, rows = np.nonzero(scores > post.confidence)
    else:
        best = np.argmax(scores, axis=0)
        rows = np.flatnonzero(scores[best, np.arange(scores.shape[1])] > post.confidence)
        class_ids = best[rows]
    return _Candidates(boxes[rows], scores[class_ids, rows], class_ids, rows)


def _end_to_end(raw: npt.NDArray[Any], *, head: HeadSpec, confidence: float) -> _Candidates:
    """Candidates of (k, 6); a class id that the head does not have is no detection."""
    ids = np.where(np.isfinite(raw[:, 5]), raw[:, 5], -1).round()
    rows = np.flatnonzero((raw[:, 4] > confidence) & (ids >= 0) & (ids < head.class_count))
    return _Candidates(raw[rows, :4], raw[rows, 4], ids[rows].astype(np.int64), rows)


def _strongest(found: _Candidates, *, limit: int) -> _Candidates:
    """The ``limit`` best candidates, in the order they had."""
    if len(found.scores) <= limit:
        return found
    best = np.sort(np.argpartition(-found.scores, limit - 1)[:limit])
    return _Candidates(*(column[best] for column in found))


def _input_boxes(found: _Candidates, *, head: HeadSpec, spec: InputSpec) -> Float32Array:
    """Boxes (n, 4) x1, y1, x2, y2 in pixels of the model's input."""
    boxes = found.boxes.astype(np.float32)
    if head.family is HeadFamily.YOLOX:
        boxes = _decode_grid(boxes, found.rows, head=head, spec=spec)
    elif head.normalized_boxes:
        boxes = boxes * np.array([spec.width_px, spec.height_px] * 2, dtype=np.float32)
    if head.family is HeadFamily.END_TO_END:
        return boxes
    return corners(boxes)


def corners(boxes: Float32Array) -> Float32Array:
    """Boxes (n, 4) cx, cy, w, h as x1, y1, x2, y2."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _decode_grid(boxes: Float32Array, rows: IntArray, *, head: HeadSpec, spec: InputSpec) -> Float32Array:
    """YOLOX: (cell + offset) * stride for centres, exp(size) * stride for sizes; rows run level by level."""
    ends = np.cumsum(cell_counts(spec.height_px, spec.width_px, head.strides))
    level = np.searchsorted(ends, rows, side="right")
    within = rows - np.concatenate([[0], ends])[level]
    stride = np.array(head.strides)[level]
    columns = -(-spec.width_px // stride)
    cells = np.stack([within % columns, within // columns], axis=1)
    scale = stride[:, None].astype(np.float32)
    # In double precision and rounded once: numpy's exp of float32 differs by a bit from one CPU to the next.
    sizes = np.exp(boxes[:, 2:].astype(np.float64)).astype(np.float32) * scale
    centres = (boxes[:, :2] + cells.astype(np.float32)) * scale
    return np.concatenate([centres, sizes], axis=1)
