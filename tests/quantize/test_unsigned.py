"""INT8 tensors as uint8: the same numbers in ONNX Runtime's integer kernels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeq.quantize import unsigned
from edgeq.quantize.insert import model_bytes
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


def test_what_is_unsigned_already_is_left_alone():
    _, qdq = quantise(normalised(silu_net()), PLAIN, UINT8)
    assert with_unsigned_tensors(model_bytes(qdq)) == model_bytes(qdq)


def test_nothing_changes_where_uint8_kernels_saturate(monkeypatch):
    _, qdq = quantise(normalised(silu_net()), PLAIN, INT8)
    monkeypatch.setattr(unsigned, "cpu_features", lambda: {"vnni": "no"})
    assert with_unsigned_tensors(model_bytes(qdq)) == model_bytes(qdq)
