"""ONNX Runtime on ARM finds in a signed INT8 model what it finds here.

Its kernels on ARM and on x86 round differently here and there, and a flipped rounding moves on through the
layers behind it, so outputs are not equal. The yardstick is the model's own INT8 error: what the machine
changes has to be small beside what quantisation changed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeq.model.decode import decode_detections
from edgeq.resources import data_folder
from edgeq.types import Detections, PostProcess
from tools.arm.cache import Environment
from tools.arm.models import run_model

from .conftest import ALL_INTEGER, Lower, eval_tensors

DEMO = data_folder("demo")
CONFIDENCE = 0.25
SCORE_TOLERANCE = 0.05
"""Twice what was seen: 0.029; one step of a score is 1/256 and passes a sigmoid."""
IOU = 0.9
"""Boxes that moved by about a pixel."""


def test_signed_int8_gives_the_same_detections(arm: Environment, lower: Lower) -> None:
    recipe = replace(ALL_INTEGER, float_heads=True)
    lowered = lower("onnxruntime", DEMO / "model.onnx", DEMO / "data.yaml", recipe=recipe)
    model = lowered.source
    images = eval_tensors(model, DEMO / "data.yaml", count=2)
    inputs = np.stack([tensor for tensor, _ in images])
    here, there = (run_model(lowered.int8, inputs, cpu=cpu) for cpu in (None, "cortex-a76"))
    exact = run_model(lowered.float32, inputs, cpu=None)
    assert there.details["provider"] == "CPUExecutionProvider"
    # Near the threshold a detection may be on one side only.
    strict, loose = PostProcess(confidence=CONFIDENCE), PostProcess(confidence=CONFIDENCE - SCORE_TOLERANCE)
    found = 0
    for number, (_, geometry) in enumerate(images):
        ours, theirs, floats = (run.outputs[number][model.head.output] for run in (here, there, exact))
        assert np.abs(theirs - ours).mean() < 0.3 * np.abs(ours - floats).mean()
        decoded = {
            (name, post): decode_detections(
                {model.head.output: raw}, head=model.head, spec=model.input, geometry=geometry, post=post
            )
            for name, raw in (("here", ours), ("there", theirs))
            for post in (strict, loose)
        }
        assert _unmatched(decoded["here", strict], decoded["there", loose]) == 0
        assert _unmatched(decoded["there", strict], decoded["here", loose]) == 0
        found += len(decoded["here", strict].scores)
    assert found >= 10


def _unmatched(wanted: Detections, given: Detections) -> int:
    """How many detections have no partner of their class, place and score."""
    lost = 0
    for box, score, label in zip(wanted.boxes_xyxy, wanted.scores, wanted.class_ids, strict=True):
        fits = (given.class_ids == label) & (np.abs(given.scores - score) <= SCORE_TOLERANCE)
        lost += not (fits & (_iou(box, given.boxes_xyxy) >= IOU)).any()
    return lost


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) intersection over union of (4,) with (n, 4), x1 y1 x2 y2."""
    size = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None)
    inside = size.prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return inside / (areas - inside)
