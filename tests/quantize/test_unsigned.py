"""INT8 tensors as uint8: the same numbers in ONNX Runtime's integer kernels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeq.quantize import unsigned
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.ort import cpu_session
from edgeq.quantize.unsigned import with_unsigned_tensors

from .nets import INT8, PLAIN, UINT8, images, normalised, quantise, residual_net, run, silu_net


def types(model):
    """Types of the zero points of all roundings."""
    proto = onnx.load_from_string(model)
    constants = {entry.name: entry.data_type for entry in proto.graph.initializer}
    return {constants[node.input[2]] for node in proto.graph.node if node.op_type == "QuantizeLinear"}


@pytest.fixture
def vnni(monkeypatch):
    monkeypatch.setattr(unsigned, "cpu_features", lambda: {"vnni": "yes"})


@pytest.mark.parametrize("make", [silu_net, residual_net])
@pytest.mark.usefixtures("vnni")
def test_int8_tensors_become_uint8_and_stay_the_same_numbers(make):
    model = normalised(make())
    _, qdq = quantise(model, PLAIN, INT8)
    signed = model_bytes(qdq)
    made = with_unsigned_tensors(signed)
    assert types(signed) == {onnx.TensorProto.INT8}
    assert types(made) == {onnx.TensorProto.UINT8}
    weights = {e.name for e in onnx.load_from_string(made).graph.initializer if e.name.endswith("_quantized")}
    assert weights
    for picture in images(3):
        exact, moved, before = (run(data, picture)[0] for data in (model_bytes(model), made, signed))
        # Up to sums that lie on a rounding boundary, of which a small network has next to none.
        assert np.abs(moved - before).mean() <= 0.02 * np.abs(exact - before).mean()


@pytest.mark.parametrize("zero", [-27, -28], ids=["odd", "even"])
@pytest.mark.usefixtures("vnni")
def test_halves_of_a_product_are_rounded_to_even_before_the_zero_point_is_added(zero):
    """All products of a tensor with one in 1/256, as a SiLU has them: one in 256 is a half."""
    first, second = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    initializers = [
        onnx.numpy_helper.from_array(np.float32(0.5), "s"),
        onnx.numpy_helper.from_array(np.float32(1 / 256), "sigmoid"),
        *(onnx.numpy_helper.from_array(np.int8(z), n) for n, z in (("z", 3), ("low", -128), ("zero", zero))),
    ]
    nodes = []
    for name, grid in (("a", ("s", "z")), ("b", ("sigmoid", "low"))):
        nodes.append(onnx.helper.make_node("QuantizeLinear", [name, *grid], [f"{name}_q"]))
        nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_r"]))
    nodes.append(onnx.helper.make_node("Mul", ["a_r", "b_r"], ["product"]))
    nodes.append(onnx.helper.make_node("QuantizeLinear", ["product", "s", "zero"], ["q"]))
    nodes.append(onnx.helper.make_node("DequantizeLinear", ["q", "s", "zero"], ["out"]))

    def info(name):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(first.shape))

    graph = onnx.helper.make_graph(nodes, "g", [info("a"), info("b")], [info("out")], initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = cpu_session(with_unsigned_tensors(model.SerializeToString()))
    feed = {"a": ((first - 3) * 0.5).astype(np.float32), "b": ((second + 128) / 256).astype(np.float32)}
    exact = (first - 3) * (second + 128) / 256
    assert (np.abs(exact % 1) == 0.5).mean() > 1 / 300
    expected = np.clip(np.round(exact) + zero, -128, 127)
    np.testing.assert_array_equal(session.run(None, feed)[0] / 0.5 + zero, expected)


def test_what_is_unsigned_already_is_left_alone():
    _, qdq = quantise(normalised(silu_net()), PLAIN, UINT8)
    assert with_unsigned_tensors(model_bytes(qdq)) == model_bytes(qdq)


def test_nothing_changes_where_uint8_kernels_saturate(monkeypatch):
    _, qdq = quantise(normalised(silu_net()), PLAIN, INT8)
    monkeypatch.setattr(unsigned, "cpu_features", lambda: {"vnni": "no"})
    assert with_unsigned_tensors(model_bytes(qdq)) == model_bytes(qdq)
