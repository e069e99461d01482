"""Drift: boxes and scores where the float model sees something, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import SpecError
from edgeq.model.decode import decode_rows
from edgeq.quantize.drift import OutputDrift, has_rows
from edgeq.types import HeadFamily, HeadSpec, InputSpec

SPEC = InputSpec("images", 32, 32)
HEAD = HeadSpec(HeadFamily.YOLOV8, "out", ("a", "b"))
IMAGES = [np.zeros((1, 3, 32, 32), np.float32)]


def model_of(boxes_cxcywh, scores):
    """A model whose output is the given rows, whatever the image."""
    rows = np.concatenate([boxes_cxcywh, scores], axis=1).T[None].astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["out"]),
    ]
    constants = [numpy_helper.from_array(rows, "rows"), numpy_helper.from_array(np.float32(0), "zero")]
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, SPEC.shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, rows.shape)],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.checker.check_model(proto)
    return ir.serde.deserialize_model(proto)


BOXES = np.array([[8, 8, 4, 4], [20, 20, 8, 8], [16, 16, 2, 2]], np.float64)
SCORES = np.array([[0.9, 0.1], [0.2, 0.6], [0.01, 0.02]])


def drift_to(boxes, scores):
    return OutputDrift(model_of(BOXES, SCORES), IMAGES, spec=SPEC, head=HEAD).of(model_of(boxes, scores))


def test_the_same_model_does_not_drift():
    assert drift_to(BOXES, SCORES) == pytest.approx(0.0, abs=1e-6)


def test_background_does_not_count():
    boxes, scores = BOXES.copy(), SCORES.copy()
    boxes[2], scores[2] = [1, 1, 30, 30], [0.04, 0.04]
    assert drift_to(boxes, scores) == pytest.approx(0.0, abs=1e-6)


def test_a_moved_box_counts_by_its_overlap_and_score():
    boxes = BOXES.copy()
    boxes[0, 0] += 2.0
    # 4 x 4 boxes, 2 apart: overlap 8 of a union of 24.
    assert drift_to(boxes, SCORES) == pytest.approx((1 - 8 / 24) * 0.9 / 1.5, rel=1e-5)


def test_a_changed_score_counts_by_its_share():
    scores = SCORES.copy()
    scores[1, 1] = 0.3
    assert drift_to(BOXES, scores) == pytest.approx(0.5 * 0.6 / 1.5, rel=1e-5)


def test_nothing_in_sight_is_no_drift():
    drift = OutputDrift(model_of(BOXES, SCORES * 0.01), IMAGES, spec=SPEC, head=HEAD)
    assert drift.of(model_of(BOXES, SCORES)) == 0.0


def test_end_to_end_heads_have_no_rows():
    head = replace(HEAD, family=HeadFamily.END_TO_END)
    assert not has_rows(head)
    assert not has_rows(replace(HEAD, family=HeadFamily.CLASSIFIER))
    assert has_rows(HEAD)
    with pytest.raises(SpecError, match="sorted"):
        decode_rows({"out": np.zeros((1, 5, 6), np.float32)}, head=head, spec=SPEC)
