"""Rules whose breach TensorRT refuses, or answers with other numbers than ONNX defines.

Sources: ``QuantDequantLinearHelper`` and ``docs/operators.md`` of onnx/onnx-tensorrt (TensorRT 10.1), the
ONNX specification of QuantizeLinear, and what TensorRT-RTX 1.7 says to the models in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from edgeq.runtimes.tensorrt.findings import Finding, Severity
from edgeq.runtimes.tensorrt.view import QDQ_OPS, View, node_label

__all__ = [
    "bias_dtype",
    "foreign_op",
    "integer_op",
    "opset",
    "quantised_dtype",
    "scale_constant",
    "scale_count",
    "scale_dtype",
    "scale_value",
    "tensor_dtype",
    "zero_point",
    "zero_point_count",
]

_LOWEST_OPSET = 13
_INTEGER_OPS = (*("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),)
_SUPPORTED = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE),
        *(TensorProto.INT8, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8),
        *(TensorProto.FLOAT8E4M3FN, TensorProto.INT4),
    }
)
"""uint8 and what lies behind it have rules of their own."""


def opset(view: View) -> Iterator[Finding]:
    """Scales per channel exist since opset 13."""
    if view.opset < _LOWEST_OPSET:
        yield _error(
            "opset",
            "",
            f"opset {view.opset}: QuantizeLinear and DequantizeLinear take scales per channel from "
            f"opset {_LOWEST_OPSET} on",
            "export again with opset 13 to 20, or quantise with edgeq, which upgrades it",
        )


def zero_point(view: View) -> Iterator[Finding]:
    """TensorRT quantises symmetrically: every zero point is 0."""
    for node in view.nodes(*QDQ_OPS):
        values = view.array(node.input[2]) if _has_input(node, 2) else None
        if values is not None and values.size and np.any(values != 0):
            odd = values.reshape(-1)[np.flatnonzero(values)[0]]
            yield _error(
                "zero-point",
                node_label(node),
                f"zero point {odd}: TensorRT takes 0 only",
                "quantise symmetrically: --target jetson-orin-nano, or another NVIDIA target",
            )


def quantised_dtype(view: View) -> Iterator[Finding]:
    """int8, given by the zero point: uint8 is refused or read as int8, other integers are refused."""
    for node in view.nodes(*QDQ_OPS):
        kind = _quantised_type(view, node)
        if kind is None or kind in (TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT32):
            continue  # int32 is the bias's, see bias_dtype
        name = TensorProto.DataType.Name(kind).lower()
        implied = node.op_type == "QuantizeLinear" and not _has_input(node, 2)
        what = "no zero point, which means uint8" if implied else f"{name} values"
        more = ": TensorRT reads them as int8 or refuses them" if kind == TensorProto.UINT8 else ""
        yield _error(
            "quantised-dtype",
            node_label(node),
            f"{what}{more or ': TensorRT quantises to int8'}",
            "give every pair an int8 zero point of 0",
        )


def scale_value(view: View) -> Iterator[Finding]:
    """Scales are finite and above zero; a dead channel is where a zero comes from."""
    for node in view.nodes(*QDQ_OPS):
        scale = view.array(node.input[1]) if _has_input(node, 1) else None
        if scale is None or scale.dtype.kind != "f":
            continue
        wide = scale.astype(np.float64)
        bad = np.flatnonzero(~(np.isfinite(wide) & (wide > 0)))
        if bad.size:
            value, where = wide.reshape(-1)[bad[0]], f" of channel {bad[0]}" if scale.size > 1 else ""
            yield _error(
                "scale-value",
                node_label(node),
                f"scale {value:g}{where}: TensorRT wants scales above zero"
                + (f" ({bad.size} such channels)" if bad.size > 1 else ""),
                "give dead channels a small scale, such as 1e-8",
            )


def scale_dtype(view: View) -> Iterator[Finding]:
    """float32: a float16 scale makes its layer's operands differ in type."""
    for node in view.nodes(*QDQ_OPS):
        tensor = view.constants.get(node.input[1]) if _has_input(node, 1) else None
        if tensor is not None and tensor.data_type != TensorProto.FLOAT:
            yield _error(
                "scale-dtype",
                node_label(node),
                f"its scale is {_type_name(tensor)}: it gives a type to the layer behind it, "
                "which must be that of all its operands",
                "store scales as float32",
            )


def scale_constant(view: View) -> Iterator[Finding]:
    """Scales are constants; TensorRT-RTX crashed on a computed one."""
    for node in view.nodes(*QDQ_OPS):
        if _has_input(node, 1) and node.input[1] not in view.derived:
            yield _error(
                "scale-constant",
                node_label(node),
                "its scale is computed while the model runs: TensorRT quantises with constants",
                "calibrate: static quantisation, as edgeq does it",
            )


def scale_count(view: View) -> Iterator[Finding]:
    """One scale, or one for each channel of a constant."""
    for node in view.nodes(*QDQ_OPS):
        scale = view.array(node.input[1]) if _has_input(node, 1) else None
        data = view.constants.get(node.input[0]) if node.input else None
        if scale is None or scale.size == 1 or data is None or scale.ndim != 1:
            continue
        axis = _axis(node, len(data.dims))
        channels = data.dims[axis] if 0 <= axis < len(data.dims) else None
        if channels != scale.size:
            yield _error(
                "scale-count",
                node_label(node),
                f"{scale.size} scales for "
                + (f"{channels} channels along axis {axis}" if channels is not None else f"no axis {axis}"),
                "one scale per channel of that axis, or one in all",
            )


def zero_point_count(view: View) -> Iterator[Finding]:
    """As many zero points as scales."""
    for node in view.nodes(*QDQ_OPS):
        if not (_has_input(node, 1) and _has_input(node, 2)):
            continue
        sizes = [view.constants.get(name) for name in node.input[1:3]]
        counts = [int(np.prod(tensor.dims)) for tensor in sizes if tensor is not None]
        if len(counts) == 2 and counts[0] != counts[1]:
            yield _error(
                "zero-point-count",
                node_label(node),
                f"{counts[1]} zero points for {counts[0]} scales",
                "give the zero point the shape of the scale",
            )


def bias_dtype(view: View) -> Iterator[Finding]:
    """DequantizeLinear takes no int32, so a bias stays float."""
    for node in view.nodes("DequantizeLinear"):
        tensor = view.constants.get(node.input[0]) if node.input else None
        if tensor is not None and tensor.data_type == TensorProto.INT32:
            yield _error(
                "bias-dtype",
                node_label(node),
                "int32 behind DequantizeLinear (a quantised bias): TensorRT refuses it",
                "leave the bias in float; TensorRT rounds it itself where it needs to",
            )


def integer_op(view: View) -> Iterator[Finding]:
    """TensorRT reads quantisation from QuantizeLinear and DequantizeLinear, not from integer ops."""
    for node in view.nodes(*_INTEGER_OPS):
        yield _error(
            "integer-op",
            node_label(node),
            f"{node.op_type}: TensorRT has no such op",
            "quantise in QDQ form",
        )


def foreign_op(view: View) -> Iterator[Finding]:
    """Ops of another domain need a plugin."""
    for node in view.model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield _error(
                "foreign-op",
                node_label(node),
                f"{node.domain}.{node.op_type} is no standard ONNX op: TensorRT needs a plugin for it",
                "export without it; ONNX Runtime's optimised models hold such ops, the original does not",
            )


def tensor_dtype(view: View) -> Iterator[Finding]:
    """Constants of types that TensorRT has not."""
    for name, tensor in view.constants.items():
        if tensor.data_type not in _SUPPORTED:
            yield _error(
                "tensor-dtype",
                name,
                f"a constant of type {_type_name(tensor)}: TensorRT has no such type",
                "float32, float16, int8, int32 or int64",
            )


def _error(rule: str, node: str, message: str, fix: str) -> Finding:
    return Finding(rule, Severity.ERROR, node, message, fix)


def _has_input(node: onnx.NodeProto, index: int) -> bool:
    return len(node.input) > index and bool(node.input[index])


def _quantised_type(view: View, node: onnx.NodeProto) -> int | None:
    """Type of the integers that a Q makes or a DQ takes; None: not told."""
    if _has_input(node, 2):
        tensor = view.constants.get(node.input[2])
        return None if tensor is None else tensor.data_type
    if node.op_type == "QuantizeLinear":
        told = [entry.i for entry in node.attribute if entry.name == "output_dtype" and entry.i]
        return told[0] if told else TensorProto.UINT8
    tensor = view.constants.get(node.input[0]) if node.input else None
    return None if tensor is None else tensor.data_type


def _axis(node: onnx.NodeProto, rank: int) -> int:
    """The channel axis, counted from the front; ONNX's default is 1."""
    axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
    return int(axis) + rank if axis < 0 else int(axis)


def _type_name(tensor: onnx.TensorProto) -> str:
    try:
        return str(TensorProto.DataType.Name(tensor.data_type)).lower()
    except ValueError:
        return f"number {tensor.data_type}"
