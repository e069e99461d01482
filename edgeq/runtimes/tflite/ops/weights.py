"""Weights and biases as TFLite stores them: channels-last, int8 per channel, int32 or int64 bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.quantize.recipe import Granularity, RangeMethod
from edgeq.quantize.weights import quantize_weight
from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Grid, Node, refuse

__all__ = ["weight_and_bias"]

_INT32 = 2**31 - 1


def weight_and_bias(
    emit: Emitter,
    node: Node,
    order: tuple[int, ...],
    *,
    channel_axis: int,
    channels: int,
    shape: tuple[int, ...] | None = None,
    hybrid: bool = True,
    scale_factor: float = 1.0,
) -> tuple[int, int]:
    """Tensors of weight and bias; a bias of zeros where there is none, since XNNPACK demands one.

    Args:
        emit: where to write.
        node: Conv, ConvTranspose, Gemm or MatMul with a constant weight as input 1.
        order: transposition of the weight.
        channel_axis: output channel axis of the transposed weight.
        channels: number of output channels.
        shape: of the weight after the transposition; None: as it comes.
        hybrid: this op has a kernel for float activations with int8 weights.
        scale_factor: Gemm's alpha, taken into a float weight.
    """
    operand = node.inputs[1]
    value = emit.value(operand)
    if value.array is None:
        raise refuse(node, "its weight is computed by the model", "export it with constant weights")
    keep = node.integer or (hybrid and emit.hybrid)
    if keep and value.grid is not None and scale_factor == 1.0:
        array, grid = value.array, value.grid
    elif keep and not node.integer:
        real = _real(emit, node) * np.float32(scale_factor)
        axis = order[channel_axis]
        made = quantize_weight(
            real, axis=axis, granularity=Granularity.PER_CHANNEL, method=RangeMethod.MINMAX
        )
        array = made.values
        grid = Grid(tuple(map(float, made.scale)), (0,) * made.scale.size, "int8", axis)
    elif value.grid is not None and scale_factor == 1.0 and shape is None and value.grid.axis is not None:
        # Stored in INT8, computed in float: the runtime restores it once, when the model is loaded.
        kept = emit.constant(
            value.array, operand.name, grid=replace(value.grid, axis=channel_axis), order=order
        )
        return emit.restored(kept, operand.name), _float_bias(emit, node, channels)
    else:
        real = np.transpose(_real(emit, node) * np.float32(scale_factor), order)
        real = real if shape is None else real.reshape(shape)
        return emit.weight(np.ascontiguousarray(real), operand.name), _float_bias(emit, node, channels)
    stored = np.transpose(array, order)
    per_channel = grid if grid.axis is None else replace(grid, axis=channel_axis)
    stored = stored if shape is None else stored.reshape(shape)
    weight = emit.constant(stored, operand.name, grid=per_channel)
    if not node.integer:
        return weight, _float_bias(emit, node, channels)
    return weight, _integer_bias(emit, node, per_channel, channels)


def _real(emit: Emitter, node: Node) -> npt.NDArray[np.float32]:
    array = emit.graph.constant(node.inputs[1])
    if array is None:
        raise AssertionError(node.name)
    return np.asarray(array, np.float32)


def _bias_values(emit: Emitter, node: Node, channels: int) -> npt.NDArray[np.float32]:
    operand = node.input(2)
    if not operand.name:
        return np.zeros(channels, np.float32)
    array = emit.graph.constant(operand)
    if array is None:
        raise refuse(node, "its bias is computed by the model", "export it with a constant bias")
    if array.size not in (1, channels):
        raise refuse(node, f"its bias has {array.size} values for {channels} channels", "add it with an Add")
    factor = np.float32(node.get("beta", 1.0) if node.op == "Gemm" else 1.0)
    return np.broadcast_to(array.reshape(-1).astype(np.float32) * factor, (channels,))


def _float_bias(emit: Emitter, node: Node, channels: int) -> int:
    return emit.constant(np.ascontiguousarray(_bias_values(emit, node, channels)), f"{node.outputs[0]};bias")


def _integer_bias(emit: Emitter, node: Node, weight: Grid, channels: int) -> int:
    """Bias on the grid ``input scale x weight scale``, as the accumulator has it."""
    source = emit.value(node.inputs[0]).grid
    if source is None:
        raise AssertionError(node.name)
    scale = np.float32(source.scale[0]) * np.asarray(weight.scale, np.float32)
    given = emit.graph.values.get(node.input(2).name)
    wide = source.dtype == "int16"
    integers: npt.NDArray[Any]
    if given is not None and given.array is not None and given.grid is not None and _close(given.grid, scale):
        integers = given.array.astype(np.int64)
    else:
        integers = np.rint(_bias_values(emit, node, channels).astype(np.float64) / scale.astype(np.float64))
        integers = np.clip(integers, -_INT32, _INT32) if not wide else integers
    integers = np.broadcast_to(integers.reshape(-1), (channels,)).astype(np.int64 if wide else np.int32)
    zero = (0,) * scale.size
    axis = 0 if scale.size > 1 else None
    grid = Grid(tuple(map(float, scale)), zero, "int64" if wide else "int32", axis)
    return emit.constant(np.ascontiguousarray(integers), f"{node.outputs[0]};bias", grid=grid, keep_type=True)


def _close(grid: Grid, scale: npt.NDArray[np.float32]) -> bool:
    found = np.asarray(grid.scale, np.float32)
    return found.size in (1, scale.size) and bool(np.allclose(found, scale, rtol=1e-5, atol=0))
