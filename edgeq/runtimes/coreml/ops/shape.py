"""Ops that move values."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.source import Array, Node, as_ints, refuse

__all__ = [
    "concat", "depth_to_space", "expand", "flatten", "pad", "reshape", "slice_", "space_to_depth", "split",
    "squeeze", "tile", "transpose", "unsqueeze",
]  # fmt: skip

_DEEPEST = 5
"""Core ML's tensors have at most five axes."""


def concat(emit: Emitter, node: Node) -> None:
    """concat."""
    values = [emit.input(node, index) for index in range(len(node.inputs))]
    emit.write(node, "concat", values=values, axis=np.int32(node.get("axis", 0)))


def reshape(emit: Emitter, node: Node) -> None:
    """reshape to the shape that it has."""
    _to_shape(emit, node)


def flatten(emit: Emitter, node: Node) -> None:
    """reshape."""
    _to_shape(emit, node)


def squeeze(emit: Emitter, node: Node) -> None:
    """reshape."""
    _to_shape(emit, node)


def unsqueeze(emit: Emitter, node: Node) -> None:
    """reshape."""
    _to_shape(emit, node)


def _to_shape(emit: Emitter, node: Node) -> None:
    shape = _result(emit, node)
    emit.write(node, "reshape", x=emit.input(node, 0), shape=np.asarray(shape, np.int32))


def _result(emit: Emitter, node: Node) -> tuple[int, ...]:
    shape = emit.source.shapes.get(node.outputs[0])
    if shape is None:
        raise refuse(node, "the shape of its result is not known", "export it with a fixed input size")
    if len(shape) > _DEEPEST:
        raise refuse(
            node, f"its result has {len(shape)} axes, Core ML's tensors at most {_DEEPEST}",
            "export the model with fewer axes at that place",
        )  # fmt: skip
    return shape


def transpose(emit: Emitter, node: Node) -> None:
    """transpose."""
    rank = len(emit.shape(node.inputs[0]))
    order = node.get("perm") or list(range(rank))[::-1]
    emit.write(node, "transpose", x=emit.input(node, 0), perm=np.asarray(list(order), np.int32))


def split(emit: Emitter, node: Node) -> None:
    """split into the sizes that its results have."""
    axis = int(node.get("axis", 0))
    sizes = [emit.source.shapes[name][axis] for name in node.outputs]
    parts = emit.op(
        "split", x=emit.input(node, 0), split_sizes=np.asarray(sizes, np.int32),
        axis=np.int32(axis),
    )  # fmt: skip
    emit.values.update(zip(node.outputs, parts, strict=True))


def slice_(emit: Emitter, node: Node) -> None:
    """slice_by_index; ends beyond the size or before the start are left open."""
    shape = emit.shape(node.inputs[0])
    rank = len(shape)
    starts = as_ints(emit.fixed(node, 1, "start"))
    ends = as_ints(emit.fixed(node, 2, "end"))
    axes = as_ints(emit.fixed(node, 3, "list of axes")) if node.input(3) else list(range(len(starts)))
    steps = as_ints(emit.fixed(node, 4, "step")) if node.input(4) else [1] * len(starts)
    begin, end, stride = np.zeros((3, rank), np.int32)
    stride += 1
    begin_open, end_open = np.ones((2, rank), bool)
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        index, size = axis % rank, shape[axis % rank]
        first, last, _ = slice(start, stop, step).indices(size)
        begin[index], stride[index], begin_open[index] = first, step, False
        if (step > 0 and last < size) or (step < 0 and last >= 0):
            end[index], end_open[index] = last, False
    emit.write(
        node, "slice_by_index", x=emit.input(node, 0), begin=begin, end=end, stride=stride,
        begin_mask=begin_open, end_mask=end_open,
    )  # fmt: skip


def expand(emit: Emitter, node: Node) -> None:
    """tile, after leading axes of size 1."""
    shape, target = emit.shape(node.inputs[0]), _result(emit, node)
    value = emit.input(node, 0)
    full = (1,) * (len(target) - len(shape)) + tuple(shape)
    if full != tuple(shape):
        value = emit.op("reshape", x=value, shape=np.asarray(full, np.int32))
    counts = [to // size for size, to in zip(full, target, strict=True)]
    emit.write(node, "tile", x=value, reps=np.asarray(counts, np.int32))


def tile(emit: Emitter, node: Node) -> None:
    """tile."""
    counts = as_ints(emit.fixed(node, 1, "list of counts"))
    emit.write(node, "tile", x=emit.input(node, 0), reps=np.asarray(counts, np.int32))


def pad(emit: Emitter, node: Node) -> None:
    """pad; MIL pads the last axes only in modes other than constant, and orders by axis."""
    pads = np.asarray(as_ints(emit.fixed(node, 1, "list of pads")))
    rank = len(emit.shape(node.inputs[0]))
    if node.input(3):
        axes = [axis % rank for axis in as_ints(emit.fixed(node, 3, "list of axes"))]
        full: Array = np.zeros((2, rank), np.int64)
        full[:, axes] = pads.reshape(2, len(axes))
        pads = full.reshape(-1)
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        node.get("mode", "constant")
    )
    if mode is None or (pads < 0).any():
        raise refuse(node, f"mode {node.get('mode')} with pads {pads.tolist()}", "export it with plain zeros")
    ordered: Array = pads.reshape(2, rank).T
    if mode != "constant":
        if ordered[:-2].any():
            raise refuse(node, "it pads more than the last two axes", "export it with zeros")
        ordered = ordered[-2:]
    value = emit.constant(node, 2) if node.input(2) else None
    fill = emit.float_dtype(0 if value is None or not value.size else float(value.reshape(-1)[0]))
    emit.write(
        node, "pad", x=emit.input(node, 0), pad=ordered.reshape(-1).astype(np.int32), mode=mode,
        constant_val=fill,
    )  # fmt: skip


def space_to_depth(emit: Emitter, node: Node) -> None:
    """space_to_depth, which orders channels as ONNX does."""
    emit.write(node, "space_to_depth", x=emit.input(node, 0), block_size=np.int32(node.get("blocksize", 2)))


def depth_to_space(emit: Emitter, node: Node) -> None:
    """depth_to_space; pixel_shuffle for mode CRD."""
    size = np.int32(node.get("blocksize", 2))
    mode = node.get("mode", "DCR")
    if mode in ("DCR", b"DCR"):
        emit.write(node, "depth_to_space", x=emit.input(node, 0), block_size=size)
    else:
        emit.write(node, "pixel_shuffle", x=emit.input(node, 0), upscale_factor=size)
