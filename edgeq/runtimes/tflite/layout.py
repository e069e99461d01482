"""The order in which each value's axes are stored: NCHW to NHWC without needless transposes.

A value keeps its logical axes, as ONNX numbers them; ``perm[i]`` is the logical axis that stored axis i
holds. Convolutions ask for channels last. Everything behind them takes the order that it finds: an
elementwise op computes in any order, a Transpose only renames axes, and a Reshape keeps the order where
it merges or splits axes that lie next to each other. A TRANSPOSE is written only where a reader needs
another order than the one that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeq.runtimes.tflite.graph import Graph, Node, Value

__all__ = [
    "NHWC",
    "LayoutPlan",
    "Made",
    "Perm",
    "Rule",
    "compatible",
    "identity",
    "input_order",
    "inverse",
    "moved_last",
    "plan_layouts",
    "reshape_layout",
    "squeezed",
    "transposed_layout",
]

Perm = tuple[int, ...]

NHWC: Perm = (0, 2, 3, 1)
Made = tuple[dict[int, Perm], list[Perm]]
"""(input -> order that it needs; an input that is missing is taken as it is, orders of the outputs)."""
Rule = Callable[[Node, Mapping[str, Value], Mapping[str, Perm]], Made]
"""How one op treats orders, from the node, all values and the orders so far; see `orders`."""


@dataclass(frozen=True)
class LayoutPlan:
    """Storage orders of all values, and what each reader wants."""

    values: Mapping[str, Perm]
    wanted: Mapping[tuple[str, int], Perm]
    """(node name, input) -> order; inputs that are missing here are taken as they are."""


def identity(rank: int) -> Perm:
    """Stored as ONNX has it."""
    return tuple(range(rank))


def input_order(rank: int) -> Perm:
    """How inputs of a model are stored: images have their channels last."""
    return NHWC if rank == len(NHWC) else identity(rank)


def inverse(perm: Perm) -> Perm:
    """Logical axis -> stored axis."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def moved_last(perm: Perm, axis: int) -> Perm:
    """The same order with one logical axis stored last."""
    return (*(entry for entry in perm if entry != axis), axis)


def squeezed(shape: Sequence[int], perm: Perm) -> Perm:
    """The order of the axes that are longer than 1: all that matters in memory."""
    return tuple(axis for axis in perm if shape[axis] != 1)


def compatible(shape: Sequence[int], a: Perm, b: Perm) -> bool:
    """Whether two orders put the same elements at the same places."""
    return squeezed(shape, a) == squeezed(shape, b)


def transposed_layout(perm: Perm, order: Sequence[int]) -> Perm:
    """Storage order of a Transpose's output that leaves memory alone."""
    where = {axis: index for index, axis in enumerate(order)}
    return tuple(where[axis] for axis in perm)


def reshape_layout(shape: Sequence[int], target: Sequence[int], perm: Perm) -> tuple[Perm, Perm]:
    """How to reshape without moving more than needed.

    Args:
        shape: logical shape of the input.
        target: logical shape of the output.
        perm: storage order of the input.

    Returns:
        (order that the input has to be in, order of the output); the first is ``perm`` where nothing
        has to move.
    """
    groups = _groups(shape, target)
    group_of = {axis: index for index, (ins, _) in enumerate(groups) for axis in ins}
    order = squeezed(shape, perm)
    visited = list(dict.fromkeys(group_of[axis] for axis in order))
    wanted = tuple(axis for index in visited for axis in groups[index][0])
    made = tuple(axis for index in visited for axis in groups[index][1])
    wanted_full = perm if wanted == order else _with_ones(shape, wanted)
    return wanted_full, _with_ones(target, made)


def plan_layouts(graph: Graph, rules: Mapping[str, Rule]) -> LayoutPlan:
    """Orders for every value of a graph.

    Args:
        graph: what is to be lowered.
        rules: op type -> how it treats orders.
    """
    values: dict[str, Perm] = {}
    wanted: dict[tuple[str, int], Perm] = {}
    for name in graph.inputs:
        values[name] = input_order(len(graph.values[name].shape))
    for node in graph.nodes:
        wants, makes = rules[node.op](node, graph.values, values)
        wanted.update({(node.name, index): perm for index, perm in wants.items()})
        values.update(zip(node.outputs, makes, strict=False))
    return LayoutPlan(values, wanted)


def _groups(shape: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes (longer than 1) of both shapes that hold the same elements."""
    ins = [axis for axis, size in enumerate(shape) if size != 1]
    outs = [axis for axis, size in enumerate(target) if size != 1]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(ins) and j < len(outs):
        left, right = [ins[i]], [outs[j]]
        have, need = shape[ins[i]], target[outs[j]]
        i, j = i + 1, j + 1
        while have != need:
            if have < need:
                left.append(ins[i])
                have, i = have * shape[ins[i]], i + 1
            else:
                right.append(outs[j])
                need, j = need * target[outs[j]], j + 1
        groups.append((left, right))
    return groups


def _with_ones(shape: Sequence[int], order: Perm) -> Perm:
    """An order of all axes, given that of the axes longer than 1.

    Channels last where that fits, since convolutions come next; else ONNX's own order, else ones first.
    """
    rank = len(shape)
    for candidate in (NHWC, identity(rank)):
        if len(candidate) == rank and squeezed(shape, candidate) == order:
            return candidate
    return (*(axis for axis in range(rank) if shape[axis] == 1), *order)
