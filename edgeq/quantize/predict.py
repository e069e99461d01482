"""How far the INT8 model's answers are from the float model's, on calibration images.

The validation images must not decide what is quantised how, and 128 labelled calibration images would
resolve a drop of a point at best. So the float model's own confident answers are taken as the truth,
which every image has, and the INT8 model is scored against them. That disagreement is far larger than
the drop it predicts, since an object found a pixel elsewhere is as good as before; the relation
between the two was fitted on measured pairs (see :data:`_LINEAR`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeq.evaluate.matching import match_images
from edgeq.evaluate.precision import mean_average_precision
from edgeq.model.decode import decode_classes, decode_detections
from edgeq.quantize.ort import cpu_session, in_parallel
from edgeq.quantize.unsigned import with_unsigned_tensors
from edgeq.types import Detections, DetectionTruth, Float32Array, HeadSpec, InputSpec, PostProcess, Task

__all__ = ["DropPredictor"]

_CONFIDENT = 0.25
_LINEAR, _QUADRATIC = 0.02, 0.0022
"""drop = 0.02 d + 0.0022 d^2 with d = 100 - AP 50-95 against the float model's detections. Fitted on 19
INT8 variants of YOLOX-Nano, YOLOv5n, YOLOv8n and YOLO11n with drops of 0 to 11 points on COCO images.
Below 2 points it is off by 0.3 usually, by up to 1 at worst; it ranks, it does not measure."""
_APART_PX = 8192
_CLASS_SHARE = 0.25
"""Of the images where the top class changes: about as many change to right as to wrong, one in two was
wrong in both, so the drop is well below the share of changes."""


class _InputPixels:
    """Boxes stay in the model's input."""

    def to_original(self, boxes_xyxy: Float32Array, /) -> Float32Array:
        return boxes_xyxy


@dataclass(frozen=True)
class _Answers:
    detections: tuple[Detections, ...]
    classes: tuple[int, ...]


class DropPredictor:
    """Predicts the drop of INT8 models against one float model."""

    def __init__(
        self, float_model: bytes, images: Sequence[Float32Array], *, spec: InputSpec, head: HeadSpec
    ) -> None:
        """Run the float model.

        Args:
            float_model: serialised ONNX.
            images: pre-processed calibration inputs.
            spec: of the input.
            head: of the outputs.
        """
        self._images, self._spec, self._head = images, spec, head
        self._float = self._answers(cpu_session(float_model))

    def predict(self, int8_model: bytes) -> float:
        """Predicted drop in points of mAP 50-95 x 100 or top-1 x 100; 0 or more."""
        answers = self._answers(cpu_session(with_unsigned_tensors(int8_model)))
        if self._head.task is Task.CLASSIFY:
            changed = np.mean(np.asarray(answers.classes) != np.asarray(self._float.classes))
            return float(100.0 * changed * _CLASS_SHARE)
        truths = [_as_truth(_pooled(found)) for found in self._float.detections]
        table = match_images([_pooled(found) for found in answers.detections], truths, class_count=1)
        score = mean_average_precision(table, np.ones((1, len(truths)), np.int64))[0]
        # No confident detection on any image: nothing can be said against the INT8 model.
        distance = 0.0 if np.isnan(score) else 100.0 * (1.0 - float(score))
        return _LINEAR * distance + _QUADRATIC * distance * distance

    def _answers(self, session: ort.InferenceSession) -> _Answers:
        name = session.get_inputs()[0].name
        wanted = [self._head.output]

        def outputs(image: Float32Array) -> dict[str, npt.NDArray[Any]]:
            return {self._head.output: session.run(wanted, {name: image})[0]}

        raw = in_parallel(outputs, self._images)
        if self._head.task is Task.CLASSIFY:
            return _Answers((), tuple(int(np.argmax(decode_classes(o, head=self._head))) for o in raw))
        post = PostProcess(confidence=0.01, max_detections=100)
        return _Answers(
            tuple(
                decode_detections(o, head=self._head, spec=self._spec, geometry=_InputPixels(), post=post)
                for o in raw
            ),
            (),
        )


def _pooled(found: Detections) -> Detections:
    """All classes as one, far apart from each other: every box counts the same, and rare classes do not
    decide the mean."""
    shift = (found.class_ids[:, None] * _APART_PX).astype(np.float32)
    return Detections(found.boxes_xyxy + shift, found.scores, np.zeros_like(found.class_ids))


def _as_truth(found: Detections) -> DetectionTruth:
    confident = found.scores >= _CONFIDENT
    boxes = found.boxes_xyxy[confident]
    sides = boxes[:, 2:] - boxes[:, :2]
    return DetectionTruth(
        boxes,
        found.class_ids[confident],
        np.zeros(len(boxes), np.bool_),
        np.prod(sides, axis=1, dtype=np.float64),
    )
