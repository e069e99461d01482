"""QuantizeLinear and DequantizeLinear; weights become constexpr_affine_dequantize.

Source: coremltools 9, ``mil/ops/defs/iOS17/quantization_ops.py`` and ``iOS16/constexpr_ops.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.source import Array, Node, refuse
from edgeq.runtimes.onnx_graph import channel_axis

__all__ = ["dequantize", "quantize", "weight"]

_TYPES = ("int8", "uint8")
_TARGET = "quantise for a coreml target"


def quantize(emit: Emitter, node: Node) -> None:
    """quantize, per tensor or per channel; the model's input, which is float32, as it is."""
    scale, zero, axis = _parameters(emit, node)
    if node.inputs[0] in emit.source.inputs:
        value, scale = emit.values[node.inputs[0]], scale.astype(np.float32)
    else:
        value = emit.input(node, 0)
    emit.write(
        node, "quantize", input=value, scale=scale,
        zero_point=zero if zero.any() else None, output_dtype=str(zero.dtype), axis=axis,
    )  # fmt: skip


def dequantize(emit: Emitter, node: Node) -> None:
    """dequantize; a weight's integers are kept and restored when the program is loaded."""
    array = emit.constant(node, 0)
    if array is not None:
        _constant(emit, node, array)
        return
    scale, zero, axis = _parameters(emit, node)
    emit.write(
        node, "dequantize", input=emit.input(node, 0), scale=scale,
        zero_point=zero if zero.any() else None, axis=axis,
    )  # fmt: skip


def weight(emit: Emitter, integers: Array, scale: Array, zero: Array, axis: int) -> Any:
    """A variable with the real values of stored integers.

    Args:
        emit: the program.
        integers: int8 or uint8, any shape.
        scale: float, () or (channels,).
        zero: as the integers' type and the scale's shape.
        axis: of the channels.
    """
    if scale.size == 1:
        scale = scale.reshape(())
    if (zero == zero.flat[0]).all():
        zero = zero.flat[0]  # one number for all channels: as an array it takes as much as the scales
    # By hand, not through emit.op: these constants are parameters of the operation, not variables.
    return emit.builder.constexpr_affine_dequantize(
        quantized_data=integers, zero_point=zero, scale=_half_safe(emit, scale),
        axis=np.int32(axis), name=emit.unique(),
    )  # fmt: skip


def _constant(emit: Emitter, node: Node, array: Array) -> None:
    scale = emit.fixed(node, 1, "scale")
    given = emit.constant(node, 2)
    zero = np.zeros(scale.shape, array.dtype) if given is None else given
    axis = _axis(node, array.ndim) if scale.size > 1 else 0
    readers = [entry for entry in emit.source.nodes if node.outputs[0] in entry.inputs]
    if all(entry.op == "Gemm" and not entry.get("transB", 0) for entry in readers) and array.ndim > 1:
        return  # they store it turned around themselves
    if str(array.dtype) in _TYPES and array.ndim > 1:
        emit.values[node.outputs[0]] = weight(emit, array, scale, zero, axis)
        return
    # A bias: MIL's convolutions take it as a plain constant.
    shape = [-1 if index == axis else 1 for index in range(array.ndim)] if scale.size > 1 else ()
    real = (array.astype(np.float64) - zero.astype(np.float64).reshape(shape)) * scale.reshape(shape)
    emit.values[node.outputs[0]] = emit.share(emit.typed(real.astype(np.float32)))


def _parameters(emit: Emitter, node: Node) -> tuple[Array, Array, Any]:
    scale = emit.fixed(node, 1, "scale")
    given = emit.constant(node, 2)
    zero = np.zeros(scale.shape, np.uint8) if given is None else given
    if str(zero.dtype) not in _TYPES:
        raise refuse(node, f"it makes {zero.dtype}; Core ML rounds to int8 or uint8", _TARGET)
    scale = _half_safe(emit, scale)
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(()), None
    return scale, zero, np.int32(_axis(node, len(emit.source.shapes.get(node.inputs[0], (0,) * 4))))


def _half_safe(emit: Emitter, scale: Array) -> Array:
    """Scales in the node's precision; one too small for it becomes the smallest it has, never 0."""
    tiny = np.finfo(emit.float_dtype).smallest_subnormal
    return np.asarray(np.maximum(scale.astype(emit.float_dtype), tiny))


def _axis(node: Node, rank: int) -> int:
    return channel_axis(int(node.get("axis", 1)), rank)
