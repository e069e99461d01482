"""What lowering to a runtime of another format starts from: an ONNX model with constants and shapes known.

Host only. Requires what `edgeq.model.normalize` ensures: static shapes and opset 13 or later.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgeq.errors import ModelError

__all__ = ["PASSED_ON", "attributes_of", "channel_axis", "read_onnx"]

PASSED_ON = frozenset({"Identity", "Dropout"})
"""Ops whose output is their input."""
_PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def read_onnx(data: bytes) -> ir.Model:
    """A serialised float or QDQ model, its constants as initializers, its values with shapes.

    Raises:
        ModelError: it is not ONNX, or has no input or no output.
    """
    try:
        model = ir.serde.deserialize_model(onnx.load_from_string(data))
    except Exception as error:  # protobuf's and onnx-ir's exceptions share no base class
        raise ModelError(f"this is not an ONNX model: {error}", fix="export it again") from error
    if not model.graph.inputs or not model.graph.outputs:
        raise ModelError("this ONNX model has no input or no output", fix="export it again")
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    # What a pair makes is shaped as what it takes, so nobody asks.
    shaped = (node for node in model.graph if node.op_type not in _PAIRS)
    if any(value.shape is None for node in shaped for value in node.outputs):
        common.ShapeInferencePass()(model)
    return model


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Plain values, tensors as arrays; graphs as None, which no op that is lowered has."""
    return {name: _value(entry) for name, entry in node.attributes.items()}


def channel_axis(axis: int, rank: int) -> int:
    """ONNX's axis of a pair's scales, counted from the front."""
    return axis + rank if axis < 0 else axis


def _value(entry: ir.Attr) -> Any:
    if entry.type is ir.AttributeType.TENSOR:
        return entry.as_tensor().numpy()
    if entry.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return None
    return entry.value
