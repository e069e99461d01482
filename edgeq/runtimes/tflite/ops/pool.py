"""Pools, and means and maxima over axes."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Grid, Node, refuse
from edgeq.runtimes.tflite.ops.padding import VALID, Window, pad_input, window_of
from edgeq.runtimes.tflite.orders import reduced_axes

__all__ = ["arg_max", "average_pool", "global_average_pool", "global_max_pool", "max_pool", "reduce"]

_REDUCTIONS = {
    "ReduceMean": "MEAN",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceSum": "SUM",
    "ReduceProd": "REDUCE_PROD",
}


def max_pool(emit: Emitter, node: Node) -> None:
    """MAX_POOL_2D; a border that SAME does not describe is written out with the lowest value."""
    if len(node.outputs) > 1 and node.outputs[1]:
        raise refuse(node, "its indices are wanted too", "export the model without max-unpooling")
    window = _window(emit, node)
    source = emit.input(node)
    if window.explicit:
        source = pad_input(emit, node, source, window, lowest=not _never_negative(emit, node))
    made = emit.moved(node)
    _pool(emit, node, "MAX_POOL_2D", source, made, window)
    emit.settle(node, made)


def _never_negative(emit: Emitter, node: Node) -> bool:
    """Zero is then as good as the lowest value, and XNNPACK has PAD but no PADV2."""
    name = node.inputs[0].name
    grid = emit.graph.values[name].grid
    if node.integer and grid is not None:
        return grid.limits[0] >= 0
    made = emit.graph.producers().get(name)
    return made is not None and (made.activation in ("RELU", "RELU6") or made.op in ("Relu", "Sigmoid"))


def average_pool(emit: Emitter, node: Node) -> None:
    """AVERAGE_POOL_2D. TFLite leaves the border out of the mean; ONNX counts it where it is told to."""
    window = _window(emit, node)
    source = emit.input(node)
    counted = bool(node.get("count_include_pad", 0))
    if any(window.pads) and (counted or window.explicit):
        if not counted:
            raise refuse(
                node,
                "its border is uneven and not counted in the mean",
                "export it with count_include_pad, or with even padding",
            )
        if _overhang(emit, node, window):
            raise refuse(node, "ceil_mode makes windows that reach over the border", "export it without")
        source = pad_input(emit, node, source, window)
        window = Window(window.kernel, window.strides, window.dilations, window.pads, VALID)
    if node.integer:
        _mean_by_convolution(emit, node, source, window)
    else:
        _pool(emit, node, "AVERAGE_POOL_2D", source, emit.output(node), window)


def _mean_by_convolution(emit: Emitter, node: Node, source: int, window: Window) -> None:
    """A depthwise convolution with weights 1: XNNPACK has it in int8, and it rounds once."""
    grid = emit.writer.tensors[source].grid
    if grid is None:
        raise AssertionError(node.name)
    channels = emit.writer.tensors[source].shape[3]
    share = float(np.float32(1 / (window.kernel[0] * window.kernel[1])))
    ones = emit.constant(
        np.ones((1, *window.kernel, channels), np.int8), "ones", grid=Grid((share,), (0,), "int8")
    )
    wide = grid.dtype == "int16"
    bias_grid = Grid((float(np.float32(grid.scale[0] * share)),), (0,), "int64" if wide else "int32")
    zeros = np.zeros(channels, np.int64 if wide else np.int32)
    bias = emit.constant(zeros, "zeros", grid=bias_grid, keep_type=True)
    emit.op(
        "DEPTHWISE_CONV_2D",
        [source, ones, bias],
        [emit.output(node)],
        "DepthwiseConv2DOptions",
        padding=window.padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        depthMultiplier=1,
    )


def _overhang(emit: Emitter, node: Node, window: Window) -> bool:
    given = node.get("pads", (0, 0, 0, 0))
    return window.pads[2] > int(given[2]) or window.pads[3] > int(given[3])


def _window(emit: Emitter, node: Node) -> Window:
    kernel = node.get("kernel_shape")
    if kernel is None or len(kernel) != 2:
        raise refuse(node, f"its kernel is {kernel}", "TFLite pools over height and width only")
    if any(int(entry) != 1 for entry in node.get("dilations", ())):
        raise refuse(node, "it is dilated", "export it without dilation")
    return window_of(emit, node, (int(kernel[0]), int(kernel[1])))


def _pool(emit: Emitter, node: Node, code: str, source: int, target: int, window: Window) -> None:
    emit.op(
        code,
        [source],
        [target],
        "Pool2DOptions",
        padding=window.padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
    )


def global_average_pool(emit: Emitter, node: Node) -> None:
    """MEAN over height and width, which XNNPACK has in int8; its AVERAGE_POOL_2D is float only."""
    _global(emit, node, "MEAN")


def global_max_pool(emit: Emitter, node: Node) -> None:
    """REDUCE_MAX over height and width."""
    _global(emit, node, "REDUCE_MAX")


def _global(emit: Emitter, node: Node, code: str) -> None:
    rank = len(emit.stored(node.outputs[0]))
    axes = emit.constant(np.arange(1, rank - 1, dtype=np.int32))
    emit.op(code, [emit.input(node), axes], [emit.output(node)], "ReducerOptions", keepDims=True)


def reduce(emit: Emitter, node: Node) -> None:
    """MEAN, SUM, REDUCE_MAX and their like."""
    order = emit.wanted(node, 0)
    axes = sorted(order.index(axis) for axis in reduced_axes(node, emit.graph.values))
    keep = bool(node.get("keepdims", 1))
    emit.op(
        _REDUCTIONS[node.op],
        [emit.input(node), emit.constant(np.asarray(axes, np.int32))],
        [emit.output(node)],
        "ReducerOptions",
        keepDims=keep,
    )


def arg_max(emit: Emitter, node: Node) -> None:
    """ARG_MAX or ARG_MIN, which drop the axis; a RESHAPE brings it back where ONNX keeps it."""
    if node.get("select_last_index", 0):
        raise refuse(node, "it wants the last of equal values", "export it with select_last_index 0")
    order = emit.wanted(node, 0)
    axis = order.index(reduced_axes(node, emit.graph.values)[0])
    source = emit.input(node)
    shape = emit.writer.tensors[source].shape
    dropped = tuple(size for index, size in enumerate(shape) if index != axis)
    output = emit.output(node)
    keep = bool(node.get("keepdims", 1))
    made = emit.tensor(f"{node.outputs[0]};dropped", dropped, "int32") if keep else output
    code, options = ("ARG_MAX", "ArgMaxOptions") if node.op == "ArgMax" else ("ARG_MIN", "ArgMinOptions")
    emit.op(code, [source, emit.constant(np.asarray(axis, np.int32))], [made], options, outputType=2)
    if keep:
        emit.reshape(made, output)
