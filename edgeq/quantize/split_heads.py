"""One convolution for each meaning where a fused head keeps several in one tensor.

YOLOv5's last convolutions give, for each of three anchors, two offsets, two sizes and 81 logits as 255
channels, which the decoding slices apart again. As one tensor they share one INT8 grid, which has to
reach from the background's logits to the largest box offset. Each slice becomes a convolution of its own
with those rows of the weight: the same sums, each tensor with a grid of its own, and no slices, which copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.quantize.graph import add_constant, constant_array, head_nodes, node_name, tail_nodes, users
from edgeq.quantize.head_range import becomes_score
from edgeq.quantize.work import work_shares

__all__ = ["SplitHeads", "split_heads"]

_UNARY = frozenset({"Sigmoid", "Relu", "LeakyRelu", "Tanh", "Exp", "Neg"})
"""Element by element: they may stand before or behind a slice."""

_HEAVY = 0.02
"""Share of the multiplications from which on a score layer is not worth being kept in float. On YOLOv5n at
416 0.32 points are predicted with the scores of the finest grid (4 % of the work) in INT8, and 0.40 with
those of the next one (2 %), too; 0.12 were measured of either, at 2.32 and 2.45 times float's speed."""


@dataclass(frozen=True)
class SplitHeads:
    """The model with its fused heads split, and what came of them."""

    model: ir.Model
    layers: tuple[str, ...]
    """Names of the new convolutions; none: no head was fused."""
    heavy_scores: frozenset[str]
    """Those with much of the model's work whose outputs are scores as soon as a sigmoid is taken."""


def split_heads(model: ir.Model) -> SplitHeads:
    """Split every prediction convolution whose channels only slices read.

    Requires a normalised float model: static shapes, constants as initializers, named nodes. Ensures the
    same outputs, to the bit where the runtime sums a channel alone. The argument is not changed.
    """
    result = model.clone()
    graph = result.graph
    made: list[ir.Node] = []
    for conv in head_nodes(graph, tail_nodes(graph)):
        fused = _fused_head(conv)
        if fused is not None:
            readers = users(fused.chain[-1].outputs[0] if fused.chain else conv.outputs[0])
            made += [_write_part(graph, fused, part) for part in fused.parts]
            graph.remove([*readers, *fused.chain[::-1], conv], safe=True)
    if not made:
        return SplitHeads(model, (), frozenset())
    shares = work_shares(graph)
    heavy = [node for node in made if shares[node_name(node)] >= _HEAVY]
    scores = frozenset(node_name(node) for node in heavy if becomes_score(node.outputs[0], at_once=True))
    return SplitHeads(result, tuple(map(node_name, made)), scores)


@dataclass(frozen=True)
class _Part:
    """What one slice takes: ``[start:end]`` of the axis."""

    start: int
    end: int
    value: ir.Value


@dataclass(frozen=True)
class _Fused:
    """A convolution, what stands between it and the slices, and the slices."""

    conv: ir.Node
    chain: tuple[ir.Node, ...]
    """Reshape, Transpose and element-wise ops, in order."""
    dims: tuple[int, ...]
    """How the channel axis is divided: (3, 85)."""
    axis: int
    """The one of ``dims`` that is sliced."""
    parts: tuple[_Part, ...]
    """From the first channel to the last."""


def _fused_head(conv: ir.Node) -> _Fused | None:
    """The pattern behind a prediction convolution; None: it is another."""
    if conv.op_type != "Conv" or conv.attributes.get_int("group", 1) != 1:
        return None
    chain: list[ir.Node] = []
    value = conv.outputs[0]
    dims: tuple[int, ...] = (_shape(value)[1],) if len(_shape(value)) == 4 else ()
    where = list(range(len(_shape(value))))
    while dims and len(readers := users(value)) == 1 and not value.is_graph_output():
        node = readers[0]
        if node.op_type == "Transpose":
            where = [where[axis] for axis in node.attributes.get_ints("perm", [])]
        elif node.op_type == "Reshape" and where == list(range(4)):
            dims = _divided(_shape(value), _shape(node.outputs[0]))
            where = list(range(len(_shape(node.outputs[0]))))
        elif node.op_type not in _UNARY:
            break
        chain.append(node)
        value = node.outputs[0]
    sliced = _sliced(value)
    if not dims or sliced is None or len(where) != len(_shape(value)):
        return None
    axis, parts = sliced
    if not 1 <= where[axis] <= len(dims):
        return None
    return _Fused(conv, tuple(chain), dims, where[axis] - 1, parts)


def _divided(shape: Sequence[int], target: Sequence[int]) -> tuple[int, ...]:
    """How (1, c, h, w) -> (1, *dims, *rest) divides c alone; empty: it does not."""
    for count in range(1, len(target)):
        dims = tuple(target[1 : 1 + count])
        if target[0] == shape[0] == 1 and int(np.prod(dims)) == shape[1]:
            return dims
    return ()


def _sliced(value: ir.Value) -> tuple[int, tuple[_Part, ...]] | None:
    """(axis, parts) where all that reads a value takes it apart along one axis, without gap or overlap."""
    shape = _shape(value)
    found = [taken for node in users(value) for taken in _taken(node, shape)]
    axes = {axis for axis, _ in found}
    parts = sorted((part for _, part in found), key=lambda part: part.start)
    if len(axes) != 1 or len(parts) < 2 or any(part.value.is_graph_output() for part in parts):
        return None
    axis = axes.pop()
    starts, ends = [part.start for part in parts], [part.end for part in parts]
    whole = starts == [0, *ends[:-1]] and ends[-1] == shape[axis]
    return (axis, tuple(parts)) if whole else None


def _taken(node: ir.Node, shape: Sequence[int]) -> list[tuple[int, _Part]]:
    """(axis, part) of each output of a Slice or Split; (-1, ...) for any other reader, which fits no axis."""
    other = [(-1, _Part(0, 0, node.outputs[0]))]
    if node.op_type == "Split":
        axis = node.attributes.get_int("axis", 0) % len(shape)
        sizes = [_shape(value) for value in node.outputs]
        if not all(sizes):
            return other
        ends = np.cumsum([size[axis] for size in sizes]).tolist()
        return [
            (axis, _Part(end - size[axis], end, value))
            for end, size, value in zip(ends, sizes, node.outputs, strict=True)
        ]
    constants = [constant_array(entry) for entry in node.inputs[1:]]
    known = [int(array.reshape(())) for array in constants if array is not None and array.size == 1]
    if (
        node.op_type != "Slice"
        or len(known) != len(constants)
        or len(known) < 3
        or known[3:] not in ([], [1])
    ):
        return other
    start, end, axis = known[:3]
    first, last, _ = slice(start, end).indices(shape[axis])
    return [(axis % len(shape), _Part(first, last, node.outputs[0]))]


def _write_part(graph: ir.Graph, fused: _Fused, part: _Part) -> ir.Node:
    """A convolution with the channels of one part and the ops behind it; the part's readers move over."""
    conv, label, size = fused.conv, f"[{part.start}:{part.end}]", part.end - part.start
    channels = np.arange(int(np.prod(fused.dims))).reshape(fused.dims)
    rows = np.take(channels, range(part.start, part.end), axis=fused.axis).reshape(-1)
    arrays = [(source.name, constant_array(source)) for source in conv.inputs[1:] if source is not None]
    constants = [
        add_constant(graph, f"{name}{label}", array[rows]) for name, array in arrays if array is not None
    ]
    last = _node(conv, [conv.inputs[0], *constants], label)
    shape = [1, len(rows), *_shape(conv.outputs[0])[2:]]
    _describe(last.outputs[0], conv.outputs[0], label, shape)
    made = [last]
    for node in fused.chain:
        inputs = [last.outputs[0], *node.inputs[1:]]
        if node.op_type == "Reshape":
            shape = list(_shape(node.outputs[0]))
            shape[1 + fused.axis] = size
            inputs[1] = add_constant(graph, f"{node_name(node)}{label}_shape", np.asarray(shape, np.int64))
        elif node.op_type == "Transpose":
            shape = [shape[axis] for axis in node.attributes.get_ints("perm", [])]
        last = _node(node, inputs, label)
        _describe(last.outputs[0], node.outputs[0], label, shape)
        made.append(last)
    graph.insert_before(conv, made)
    for use in list(part.value.uses()):
        use.node.replace_input_with(use.idx, last.outputs[0])
    return made[0]


def _node(source: ir.Node, inputs: Sequence[ir.Value | None], label: str) -> ir.Node:
    return ir.node(source.op_type, inputs, dict(source.attributes), name=f"{node_name(source)}{label}")


def _describe(value: ir.Value, source: ir.Value, label: str, shape: Sequence[int]) -> None:
    value.name, value.type, value.shape = f"{source.name}{label}", source.type, ir.Shape(shape)


def _shape(value: ir.Value) -> tuple[int, ...]:
    """A static shape; empty where it is not known."""
    found = list(value.shape) if value.shape is not None else []
    sizes = tuple(size for size in found if isinstance(size, int))
    return sizes if len(sizes) == len(found) else ()
