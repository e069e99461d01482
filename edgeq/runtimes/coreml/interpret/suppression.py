"""Core ML's NonMaximumSuppression, from its own message: what the format's documentation says it keeps.

Source: coremltools, ``mlmodel/format/NonMaximumSuppression.proto``. Boxes under the confidence threshold go.
The best of the others stays, all that overlap it by more than the IoU threshold go (``perClass``: of those
with the same best class), and so on. The documentation leaves open whether a box at a threshold stays (here
it does), and whether the confidence of a box is its largest (here) or the sum over classes: edgeq's boxes
have one class each, so it is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Suppression", "read_suppression"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Suppression:
    """The message as plain data."""

    confidence: str
    """Input: float (n, nc), each box's score for each class."""
    coordinates: str
    """Input: float (n, 4) cx, cy, w, h."""
    kept_confidence: str
    kept_coordinates: str
    iou: float
    least_confidence: float
    iou_input: str
    """A number that is given under this name goes before ``iou``; so ``least_confidence_input``."""
    least_confidence_input: str
    per_class: bool
    labels: tuple[str, ...]

    def run(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """The boxes that stay, best first: confidence (k, nc) and coordinates (k, 4).

        Args:
            values: both inputs, and thresholds where they are not to be the model's own.
        """
        scores, boxes = np.asarray(values[self.confidence]), np.asarray(values[self.coordinates])
        iou = float(values.get(self.iou_input, self.iou))
        least = float(values.get(self.least_confidence_input, self.least_confidence))
        best, labels = scores.max(axis=1), scores.argmax(axis=1)
        waiting = np.argsort(-best, kind="stable")
        waiting = waiting[best[waiting] >= least]
        kept: list[int] = []
        while len(waiting):
            first, rest = waiting[0], waiting[1:]
            kept.append(int(first))
            gone = _overlap(boxes[first], boxes[rest]) > iou
            if self.per_class:
                gone &= labels[rest] == labels[first]
            waiting = rest[~gone]
        return {self.kept_confidence: scores[kept], self.kept_coordinates: boxes[kept]}


def read_suppression(spec: Any) -> Suppression:
    """The suppression of a NonMaximumSuppression model's specification."""
    nms = spec.nonMaximumSuppression
    return Suppression(
        confidence=nms.confidenceInputFeatureName,
        coordinates=nms.coordinatesInputFeatureName,
        kept_confidence=nms.confidenceOutputFeatureName,
        kept_coordinates=nms.coordinatesOutputFeatureName,
        iou=nms.iouThreshold,
        least_confidence=nms.confidenceThreshold,
        iou_input=nms.iouThresholdInputFeatureName,
        least_confidence_input=nms.confidenceThresholdInputFeatureName,
        per_class=nms.pickTop.perClass,
        labels=tuple(nms.stringClassLabels.vector),
    )


def _overlap(box: Array, others: Array) -> Array:
    """(m,) intersection over union of cx, cy, w, h boxes, 0 where there is no union."""
    first, rest = np.asarray(box, np.float64), np.asarray(others, np.float64)
    low = np.maximum(first[:2] - first[2:] / 2, rest[:, :2] - rest[:, 2:] / 2)
    high = np.minimum(first[:2] + first[2:] / 2, rest[:, :2] + rest[:, 2:] / 2)
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    union = first[2] * first[3] + rest[:, 2] * rest[:, 3] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
