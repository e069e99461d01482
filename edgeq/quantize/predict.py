"""How far the INT8 model's answers are from the float model's, on calibration images.

The validation images must not decide what is quantised how, and 128 labelled calibration images would
resolve a drop of a point at best. So the float model's own confident answers are taken as the truth,
which every image has, and the INT8 model is scored against them. That disagreement is far larger than
the drop it predicts, since an object found a pixel elsewhere is as good as before; the relation
between the two was fitted on measured pairs (see :data:`_LINEAR`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import onnxruntime as ort

from edgeq.evaluate.matching import match_images
from edgeq.evaluate.precision import mean_average_precision
from edgeq.model.decode import InputPixels, decode_outputs
from edgeq.quantize.ort import cpu_session, in_parallel
from edgeq.types import Detections, DetectionTruth, Float32Array, HeadSpec, InputSpec, PostProcess, Task

__all__ = ["Answer", "DropPredictor", "answer"]

_CONFIDENT = 0.25
_POST = PostProcess(confidence=0.01, max_detections=100)
_LINEAR, _QUADRATIC = 0.02, 0.0022
"""drop = 0.02 d + 0.0022 d^2 with d = 100 - AP 50-95 against the float model's detections. Fitted on 19
INT8 variants of YOLOX-Nano, YOLOv5n, YOLOv8n and YOLO11n with drops of 0 to 11 points on COCO images.
Below 2 points it is off by 0.3 usually, by up to 1 at worst; it ranks, it does not measure."""
_APART_PX = 8192
_CLASS_SHARE = 0.25
"""Of the images where the top class changes: about as many change to right as to wrong, one in two was
wrong in both, so the drop is well below the share of changes."""


Answer = Detections | int
"""What a model says of one image: detections, or the best class."""


def answer(outputs: Mapping[str, Float32Array], *, spec: InputSpec, head: HeadSpec) -> Answer:
    """What a model says, from the output that the head names."""
    found = decode_outputs(outputs, head=head, spec=spec, geometry=InputPixels(), post=_POST)
    return found if isinstance(found, Detections) else int(np.argmax(found))


class DropPredictor:
    """Predicts the drop of INT8 models against one float model."""

    def __init__(
        self,
        float_model: bytes,
        images: Sequence[Float32Array],
        *,
        spec: InputSpec,
        head: HeadSpec,
        integer_kernels: bool = True,
        known: Mapping[int, Answer] | None = None,
    ) -> None:
        """Note what to compare with; the float model runs when it is first needed.

        Args:
            float_model: serialised ONNX.
            images: pre-processed calibration inputs.
            spec: of the input.
            head: of the outputs.
            integer_kernels: as for :func:`edgeq.quantize.ort.cpu_session`; False where layers give float
                in the runtime too.
            known: position of an image -> what the float model says of it, as far as that is known.
        """
        # Every second one first: half of them are spread as all are.
        order = [*range(0, len(images), 2), *range(1, len(images), 2)]
        self._images = [images[position] for position in order]
        given = known or {}
        self._float = {place: given[position] for place, position in enumerate(order) if position in given}
        self._spec, self._head, self._integer_kernels = spec, head, integer_kernels
        self._float_model = float_model

    def predict(self, int8_model: bytes, *, enough: float | None = None) -> float:
        """Predicted drop in points of mAP 50-95 x 100 or top-1 x 100; 0 or more.

        Args:
            int8_model: serialised, as it is to be simulated (:func:`unsigned_bytes`).
            enough: where half of the images predict no more than this, the others are left out. Not for
                models that are compared with each other.
        """
        session = cpu_session(int8_model, integer_kernels=self._integer_kernels)
        found: list[Answer] = []
        total, drop = len(self._images), 0.0
        for count in (total,) if enough is None else ((total + 1) // 2, total):
            found += self._answers(session, range(len(found), count))
            missing = [place for place in range(count) if place not in self._float]
            if missing:
                self._float.update(zip(missing, self._answers(self._float_session, missing), strict=True))
            drop = self._drop(found)
            if enough is not None and drop <= enough:
                break
        return drop

    @cached_property
    def _float_session(self) -> ort.InferenceSession:
        return cpu_session(self._float_model)

    def _drop(self, found: Sequence[Answer]) -> float:
        """Of the answers to the first images."""
        exact = [self._float[place] for place in range(len(found))]
        if self._head.task is Task.CLASSIFY:
            changed = np.mean([first != second for first, second in zip(found, exact, strict=True)])
            return float(100.0 * changed * _CLASS_SHARE)
        truths = [_as_truth(_pooled(answer)) for answer in exact if isinstance(answer, Detections)]
        predictions = [_pooled(answer) for answer in found if isinstance(answer, Detections)]
        table = match_images(predictions, truths, class_count=1)
        score = mean_average_precision(table, np.ones((1, len(truths)), np.int64))[0]
        # No confident detection on any image: nothing can be said against the INT8 model.
        distance = 0.0 if np.isnan(score) else 100.0 * (1.0 - float(score))
        return _LINEAR * distance + _QUADRATIC * distance * distance

    def _answers(self, session: ort.InferenceSession, places: Sequence[int]) -> list[Answer]:
        name = session.get_inputs()[0].name
        wanted = [self._head.output]

        def one(place: int) -> Answer:
            outputs = {self._head.output: session.run(wanted, {name: self._images[place]})[0]}
            return answer(outputs, spec=self._spec, head=self._head)

        return list(in_parallel(one, places))


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
