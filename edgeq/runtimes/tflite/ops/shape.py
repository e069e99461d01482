"""Ops that rename, join, cut and pad: values move, none is computed."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Array, Node, refuse

__all__ = [
    "concat",
    "depth_to_space",
    "expand",
    "pad",
    "reshape",
    "slice_",
    "space_to_depth",
    "split",
    "tile",
    "transpose",
    "write_slice",
]

_MOST_CONCAT = 5
_MOST_SPLIT = 4
"""More than so many inputs or outputs, and XNNPACK leaves the op to the reference kernel."""


def reshape(emit: Emitter, node: Node) -> None:
    """RESHAPE, or nothing where storage order makes both shapes one."""
    source = emit.input(node)
    if emit.writer.tensors[source].shape == emit.stored(node.outputs[0]) and _one_grid(emit, node):
        emit.alias(node, source)
        return
    made = emit.moved(node)
    emit.reshape(source, made)
    emit.settle(node, made)


def transpose(emit: Emitter, node: Node) -> None:
    """Nothing: the layout plan has renamed the axes."""
    source = emit.input(node)
    if _one_grid(emit, node):
        emit.alias(node, source)
    else:
        emit.settle(node, source)


def _one_grid(emit: Emitter, node: Node) -> bool:
    return not node.integer or emit.value(node.inputs[0]).grid == emit.graph.values[node.outputs[0]].grid


def concat(emit: Emitter, node: Node) -> None:
    """CONCATENATION; inputs on other grids are brought to the output's first."""
    order = emit.order(node.outputs[0])
    axis = order.index(int(node.get("axis", 0)) % len(order))
    tensors = [_on_output_grid(emit, node, index) for index in range(len(node.inputs))]
    value = emit.graph.values[node.outputs[0]]
    while len(tensors) > _MOST_CONCAT:
        first, tensors = tensors[:_MOST_CONCAT], tensors[_MOST_CONCAT:]
        shape = list(emit.writer.tensors[first[0]].shape)
        shape[axis] = sum(emit.writer.tensors[index].shape[axis] for index in first)
        made = emit.scratch(node, f"first{len(tensors)}", tuple(shape), value)
        _concatenate(emit, first, made, axis)
        tensors = [made, *tensors]
    _concatenate(emit, tensors, emit.output(node), axis)


def _concatenate(emit: Emitter, tensors: list[int], made: int, axis: int) -> None:
    emit.op("CONCATENATION", tensors, [made], "ConcatenationOptions", axis=axis)


def _on_output_grid(emit: Emitter, node: Node, index: int) -> int:
    operand, target = node.inputs[index], emit.graph.values[node.outputs[0]]
    value, order = emit.value(operand), emit.order(node.outputs[0])
    if not node.integer or target.grid is None or value.grid == target.grid:
        return emit.fetch(operand, order, integer=node.integer)
    if value.constant:
        real = emit.graph.constant(operand)
        return emit.constant(
            target.grid.rounded(np.zeros(0) if real is None else real),
            f"{value.name};requantized",
            grid=target.grid,
            order=order,
        )
    source = emit.fetch(operand, order, integer=True)
    shape = emit.writer.tensors[source].shape
    made = emit.tensor(f"{value.name};requantized", shape, value.dtype, target.grid)
    emit.requantise(source, made)
    return made


def split(emit: Emitter, node: Node) -> None:
    """SPLIT into equal parts, else one SLICE per part."""
    order = emit.order(node.inputs[0].name)
    axis = order.index(int(node.get("axis", 0)) % len(order))
    shapes = [emit.stored(name) for name in node.outputs]
    source = emit.input(node)
    targets = [emit.moved(node, index) for index in range(len(node.outputs))]
    if len(set(shapes)) == 1 and 1 < len(shapes) <= _MOST_SPLIT:
        where = emit.constant(np.asarray(axis, np.int32))
        emit.op("SPLIT", [where, source], targets, "SplitOptions", numSplits=len(shapes))
    else:
        begin = [0] * len(order)
        for target, shape in zip(targets, shapes, strict=True):
            write_slice(emit, source, target, begin, shape)
            begin[axis] += shape[axis]
    for index, target in enumerate(targets):
        emit.settle(node, target, index)


def write_slice(emit: Emitter, source: int, target: int, begin: list[int], size: tuple[int, ...]) -> None:
    """SLICE from stored positions."""
    tensors = [source, emit.constant(np.asarray(begin, np.int32)), emit.constant(np.asarray(size, np.int32))]
    emit.op("SLICE", tensors, [target], "SliceOptions")


def slice_(emit: Emitter, node: Node) -> None:
    """SLICE, or STRIDED_SLICE for steps other than 1."""
    value, order = emit.value(node.inputs[0]), emit.order(node.inputs[0].name)
    begin, stop, step = _bounds(emit, node, value.shape)
    source, target = emit.input(node), emit.moved(node)
    stored = [list(map(int, np.asarray(entry)[list(order)])) for entry in (begin, stop, step)]
    if all(entry == 1 for entry in stored[2]):
        write_slice(emit, source, target, stored[0], emit.stored(node.outputs[0]))
    else:
        # A negative end would count from the back, so "to the very first" is said by a mask.
        mask = sum(1 << axis for axis, end in enumerate(stored[1]) if end < 0)
        ends = [max(end, 0) for end in stored[1]]
        tensors = [emit.constant(np.asarray(entry, np.int32)) for entry in (stored[0], ends, stored[2])]
        emit.op("STRIDED_SLICE", [source, *tensors], [target], "StridedSliceOptions", endMask=mask)
    emit.settle(node, target)


def _bounds(emit: Emitter, node: Node, shape: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
    given = [emit.graph.constant(node.input(index)) for index in range(1, 5)]
    if given[0] is None or given[1] is None or (node.input(3).name and given[2] is None):
        raise refuse(node, "its bounds are computed by the model", "export it with a fixed input size")
    axes = range(len(given[0])) if given[2] is None else [int(axis) % len(shape) for axis in given[2]]
    steps = [1] * len(given[0]) if given[3] is None else [int(entry) for entry in given[3]]
    begin, stop, step = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, first, last, stride in zip(axes, given[0], given[1], steps, strict=True):
        begin[axis], stop[axis], step[axis] = slice(int(first), int(last), stride).indices(shape[axis])
    return begin, stop, step


def pad(emit: Emitter, node: Node) -> None:
    """PAD with zeros, PADV2 with another constant, MIRROR_PAD."""
    order, rank = emit.order(node.inputs[0].name), len(emit.stored(node.inputs[0].name))
    pads = _pads(emit, node, rank)[list(order)]
    if (pads < 0).any():
        raise refuse(node, "it crops with negative padding", "export it with a slice")
    mode = node.get("mode", "constant")
    source, target = emit.input(node), emit.moved(node)
    widths = emit.constant(pads.astype(np.int32))
    fill = emit.graph.constant(node.input(2))
    if mode in ("reflect", "symmetric"):
        emit.op(
            "MIRROR_PAD", [source, widths], [target], "MirrorPadOptions", mode=0 if mode == "reflect" else 1
        )
    elif mode != "constant" or (node.input(2).name and fill is None):
        raise refuse(node, f"mode {mode} or a computed value", "export it with constant padding")
    elif fill is None or not fill.any():
        emit.op("PAD", [source, widths], [target], "PadOptions")
    else:
        grid = emit.writer.tensors[source].grid
        array = fill.reshape(1) if grid is None else grid.rounded(fill.reshape(1))
        emit.op("PADV2", [source, widths, emit.constant(array, grid=grid)], [target], "PadV2Options")
    emit.settle(node, target)


def _pads(emit: Emitter, node: Node, rank: int) -> Array:
    """(rank, 2) before and after each logical axis."""
    given = emit.graph.constant(node.input(1))
    given = np.asarray(node.get("pads")) if given is None and node.get("pads") is not None else given
    if given is None:
        raise refuse(node, "its widths are computed by the model", "export it with a fixed input size")
    axes = emit.graph.constant(node.input(3))
    half = len(given) // 2
    pads = np.zeros((rank, 2), np.int64)
    for index, axis in enumerate(range(rank) if axes is None else axes):
        pads[int(axis) % rank] = given[index], given[half + index]
    return pads


def expand(emit: Emitter, node: Node) -> None:
    """BROADCAST_TO, or nothing where the shape stays."""
    from edgeq.runtimes.tflite.ops.elementwise import operand_of

    source = operand_of(emit, node, 0)
    shape = emit.stored(node.outputs[0])
    if emit.writer.tensors[source].shape == shape:
        emit.alias(node, source)
        return
    target = emit.constant(np.asarray(shape, np.int32))
    emit.op("BROADCAST_TO", [source, target], [emit.output(node)], "BroadcastToOptions")


def tile(emit: Emitter, node: Node) -> None:
    """TILE."""
    counts = emit.graph.constant(node.inputs[1])
    if counts is None:
        raise refuse(node, "its counts are computed by the model", "export it with a fixed input size")
    order = emit.order(node.inputs[0].name)
    multiples = emit.constant(np.asarray(counts)[list(order)].astype(np.int32))
    emit.op("TILE", [emit.input(node), multiples], [emit.output(node)], "TileOptions")


def space_to_depth(emit: Emitter, node: Node) -> None:
    """SPACE_TO_DEPTH, which orders channels as ONNX does."""
    target = emit.moved(node)
    size = int(node.get("blocksize", 2))
    emit.op("SPACE_TO_DEPTH", [emit.input(node)], [target], "SpaceToDepthOptions", blockSize=size)
    emit.settle(node, target)


def depth_to_space(emit: Emitter, node: Node) -> None:
    """DEPTH_TO_SPACE; for mode CRD a transposition in six axes."""
    size = int(node.get("blocksize", 2))
    source, target = emit.input(node), emit.moved(node)
    if node.get("mode", "DCR") == "DCR":
        emit.op("DEPTH_TO_SPACE", [source], [target], "DepthToSpaceOptions", blockSize=size)
    else:
        n, h, w, c = emit.writer.tensors[source].shape
        value = emit.value(node.inputs[0])
        parts = emit.scratch(node, "parts", (n, h, w, c // size**2, size, size), value)
        mixed = emit.scratch(node, "mixed", (n, h, size, w, size, c // size**2), value)
        emit.reshape(source, parts)
        steps = emit.constant(np.asarray([0, 1, 4, 2, 5, 3], np.int32))
        emit.op("TRANSPOSE", [parts, steps], [mixed], "TransposeOptions")
        emit.reshape(mixed, target)
    emit.settle(node, target)
