"""Rules of `edgeq.runtimes.tflite.layout`: which storage orders each family of ops needs and makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from edgeq.runtimes.tflite.graph import Node, Value
from edgeq.runtimes.tflite.layout import (
    NHWC,
    Made,
    Perm,
    compatible,
    identity,
    moved_last,
    reshape_layout,
    transposed_layout,
)

__all__ = [
    "as_onnx",
    "axis_dropping",
    "channels_last",
    "elementwise",
    "first_elementwise",
    "follow",
    "follow_all",
    "gather",
    "last_axis",
    "products",
    "reduced_axes",
    "reshape",
    "rows",
    "transpose",
]

Values = Mapping[str, Value]
Orders = Mapping[str, Perm]


def as_onnx(node: Node, values: Values, orders: Orders) -> Made:
    """Needs and makes ONNX's own order."""
    wants = {i: identity(_rank(values, o.name)) for i, o in enumerate(node.inputs) if o.name}
    return wants, [identity(_rank(values, name)) for name in node.outputs]


def channels_last(node: Node, values: Values, orders: Orders) -> Made:
    """Needs and makes NHWC. A 1x1 convolution also takes NWHC: it does not look at neighbours."""
    found = orders.get(node.inputs[0].name, NHWC)
    swapped = (0, 3, 2, 1)
    order = swapped if found == swapped and _pointwise(node, values) else NHWC
    return {0: order}, [order]


def _pointwise(node: Node, values: Values) -> bool:
    if node.op != "Conv":
        return False
    kernel = values[node.inputs[1].name].shape[2:]
    moves = [*node.get("strides", ()), *(size + 1 for size in node.get("pads", ()))]
    return all(size == 1 for size in (*kernel, *moves)) and node.get("auto_pad", "NOTSET") == "NOTSET"


def follow(node: Node, values: Values, orders: Orders) -> Made:
    """Takes its first input as it is and hands its order on."""
    return {}, [orders[node.inputs[0].name] for _ in node.outputs]


def elementwise(node: Node, values: Values, orders: Orders) -> Made:
    """All operands in one order: that of most of the data."""
    rank = _rank(values, node.outputs[0])
    order = _vote(node, values, orders, rank)
    wants: dict[int, Perm] = {}
    for index, operand in enumerate(node.inputs):
        value = values.get(operand.name)
        if value is None or value.constant:
            continue
        missing = rank - len(value.shape)
        wants[index] = tuple(axis - missing for axis in order if axis >= missing)
    return wants, [order for _ in node.outputs]


def follow_all(node: Node, values: Values, orders: Orders) -> Made:
    """Concatenation: all inputs in the order of most of the data."""
    order = _vote(node, values, orders, _rank(values, node.outputs[0]))
    return dict.fromkeys(range(len(node.inputs)), order), [order]


def _vote(node: Node, values: Values, orders: Orders, rank: int) -> Perm:
    votes: Counter[Perm] = Counter()
    for operand in node.inputs:
        value = values.get(operand.name)
        if value is not None and not value.constant and len(value.shape) == rank:
            votes[orders[operand.name]] += value.size
    return max(votes, key=lambda perm: votes[perm]) if votes else identity(rank)


def first_elementwise(node: Node, values: Values, orders: Orders) -> Made:
    """In the order of the first input; the others are constants."""
    order = orders[node.inputs[0].name]
    return {0: order}, [order]


def gather(node: Node, values: Values, orders: Orders) -> Made:
    """Any order for a vector of indices; a single index takes its axis away."""
    data, indices = (values[operand.name] for operand in node.inputs)
    rank = len(data.shape)
    axis = int(node.get("axis", 0)) % rank
    if data.constant or not indices.constant or len(indices.shape) > 1:
        return as_onnx(node, values, orders)
    order = orders[node.inputs[0].name]
    if indices.shape:
        return {0: order}, [order]
    return {0: order}, [tuple(entry - (entry > axis) for entry in order if entry != axis)]


def last_axis(node: Node, values: Values, orders: Orders) -> Made:
    """The axis that it works along has to be stored last."""
    name = node.inputs[0].name
    shape = values[name].shape
    axis = int(node.get("axis", -1)) % len(shape)
    order = orders[name]
    if order[-1] != axis:
        order = moved_last(order, axis)
    return {0: order}, [order for _ in node.outputs]


def axis_dropping(node: Node, values: Values, orders: Orders) -> Made:
    """Reductions and ArgMax: the order stays; without ``keepdims`` the axes go."""
    order = orders[node.inputs[0].name]
    if node.get("keepdims", 1):
        return {}, [order]
    gone = set(reduced_axes(node, values))
    left = [axis for axis in range(len(order)) if axis not in gone]
    renamed = {axis: index for index, axis in enumerate(left)}
    return {}, [tuple(renamed[axis] for axis in order if axis not in gone)]


def reduced_axes(node: Node, values: Values) -> tuple[int, ...]:
    """Logical axes that a reduction removes."""
    rank = _rank(values, node.inputs[0].name)
    if "axis" in node.attributes or node.op in ("ArgMax", "ArgMin"):
        return (int(node.get("axis", 0)) % rank,)
    given = node.get("axes")
    second = values.get(node.input(1).name)
    if second is not None and second.array is not None:
        given = second.array.reshape(-1)
    if given is None or len(given) == 0:
        return tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in given))


def transpose(node: Node, values: Values, orders: Orders) -> Made:
    """Renames axes; nothing moves."""
    order = orders[node.inputs[0].name]
    axes = node.get("perm") or tuple(reversed(range(len(order))))
    return {}, [transposed_layout(order, [int(axis) for axis in axes])]


def reshape(node: Node, values: Values, orders: Orders) -> Made:
    """Reshape, Flatten, Squeeze, Unsqueeze: see `reshape_layout`."""
    name = node.inputs[0].name
    wanted, made = reshape_layout(values[name].shape, values[node.outputs[0]].shape, orders[name])
    return {0: wanted}, [made]


def products(node: Node, values: Values, orders: Orders) -> Made:
    """MatMul of two computed values: batch axes in ONNX's order, the last two either way."""
    right = values[node.inputs[1].name]
    if right.constant and len(right.shape) == 2:
        return rows(node, values, orders)
    wants: dict[int, Perm] = {}
    for index, operand in enumerate(node.inputs):
        value = values[operand.name]
        plain = identity(len(value.shape))
        swapped = (*plain[:-2], plain[-1], plain[-2])
        found = orders.get(operand.name, plain)
        wants[index] = swapped if compatible(value.shape, found, swapped) else plain
    return wants, [identity(_rank(values, node.outputs[0]))]


def rows(node: Node, values: Values, orders: Orders) -> Made:
    """MatMul with constant weights and Gemm: the contracted axis last, the others in any order."""
    name = node.inputs[0].name
    rank = len(values[name].shape)
    order = moved_last(orders[name], rank - 1)
    if node.op == "Gemm":
        order = identity(rank)
    made = order if _rank(values, node.outputs[0]) == rank else identity(_rank(values, node.outputs[0]))
    return {0: order}, [made]


def _rank(values: Values, name: str) -> int:
    return len(values[name].shape) if name in values else 0
