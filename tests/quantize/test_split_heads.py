"""Fused heads come apart without changing what the model computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgeq.model.normalize import normalise
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.split_heads import split_heads

from .nets import Net

ANCHORS, BOX, CLASSES = 3, 4, 5
CHANNELS = ANCHORS * (BOX + CLASSES)


def fused(
    *, split_op: bool = False, extra_reader: bool = False, gap: bool = False, size: int = 8
) -> onnx.ModelProto:
    """YOLOv5's head: reshape, transpose, sigmoid, slices, decoding, concatenation."""
    net = Net(size=size)
    x = net.relu(net.conv("images", 8, 3, name="stem"))
    head = net.conv(x, CHANNELS, 1, name="head")
    shape = net.constant("shape", np.asarray([1, ANCHORS, BOX + CLASSES, size, size], np.int64))
    y = net.op("Transpose", net.op("Reshape", head, shape), perm=[0, 1, 3, 4, 2])
    y = net.op("Sigmoid", y)
    edges = [0, 2, 4 - gap, BOX + CLASSES]
    starts = [0, 2, 4]
    if split_op:
        sizes = net.constant("sizes", np.asarray([2, 2, CLASSES], np.int64))
        xy, wh, scores = net.op("Split", y, sizes, outputs=3, axis=4)
    else:
        axis = net.constant("axis", np.asarray([-1], np.int64))
        xy, wh, scores = (
            net.op(
                "Slice", y, net.constant(f"start{i}", np.asarray([starts[i]], np.int64)),
                net.constant(f"end{i}", np.asarray([edges[i + 1] if i < 2 else 2**62], np.int64)), axis,
            )
            for i in range(3)
        )  # fmt: skip
    two = net.constant("two", np.asarray(2.0, np.float32))
    parts = [net.op("Mul", xy, two), net.op("Mul", wh, wh), scores]
    if extra_reader:
        parts.append(net.op("Neg", y))
    joined = net.op("Concat", *parts, axis=4)
    data, _ = normalise(net.build(joined), input_name="images", input_shape=(1, 3, size, size))
    return onnx.load_from_string(data)


def both(model: onnx.ModelProto):
    graph = ir.serde.deserialize_model(model)
    before = model_bytes(graph)
    found = split_heads(graph)
    assert model_bytes(graph) == before, "the argument was changed"
    image = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    results = []
    for data in (before, model_bytes(found.model)):
        onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
        session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"images": image}))
    return found, results


@pytest.mark.parametrize("split_op", [False, True], ids=["Slice", "Split"])
def test_the_outputs_are_those_of_the_source(split_op: bool) -> None:
    found, (before, after) = both(fused(split_op=split_op))
    assert found.layers == ("head[0:2]", "head[2:4]", f"head[4:{BOX + CLASSES}]")
    for left, right in zip(before, after, strict=True):
        np.testing.assert_allclose(right, left, rtol=0, atol=1e-6)


def test_each_part_has_the_rows_of_its_slice() -> None:
    model = fused()
    found, _ = both(model)
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    whole = weights["head_w"].reshape(ANCHORS, BOX + CLASSES, -1)
    for node in found.model.graph:
        if node.name == f"head[4:{BOX + CLASSES}]":
            part = node.inputs[1].const_value.numpy().reshape(ANCHORS, CLASSES, -1)
            np.testing.assert_array_equal(part, whole[:, 4:])
            return
    pytest.fail("no part for the scores")


def test_no_slice_of_the_whole_tensor_is_left() -> None:
    found, _ = both(fused())
    assert not {"Slice", "Split"} & {node.op_type for node in found.model.graph}
    assert "head" not in {node.name for node in found.model.graph}


def test_only_what_is_a_score_at_once_is_a_heavy_score() -> None:
    """Boxes have a sigmoid, too, but are decoded further."""
    found, _ = both(fused())
    assert found.heavy_scores == {f"head[4:{BOX + CLASSES}]"}


@pytest.mark.parametrize("change", [{"extra_reader": True}, {"gap": True}])
def test_a_head_that_something_else_reads_or_with_a_gap_stays(change: dict[str, bool]) -> None:
    model = fused(**change)
    graph = ir.serde.deserialize_model(model)
    found = split_heads(graph)
    assert found.model is graph
    assert (found.layers, found.heavy_scores) == ((), frozenset())
