"""Rewrites before lowering: activations into the op before them, hard-swish out of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgeq.runtimes.tflite.graph import Graph, Node, Operand, Value

__all__ = ["fuse_activations", "fuse_hard_swish", "limits_of", "ungroup_transposed"]

_TAKES_ACTIVATION = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul"})
_LIMITS = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
_HARD_SIGMOID = (1 / 6, 0.5)


def limits_of(graph: Graph, node: Node) -> tuple[float, float] | None:
    """The interval that a Relu or Clip keeps; None: another op, or limits that are computed."""
    if node.op == "Relu":
        return 0.0, float(np.inf)
    if node.op != "Clip":
        return None
    found = []
    for index, default in ((1, -np.inf), (2, np.inf)):
        operand = node.input(index)
        array = graph.constant(operand)
        if operand.name and array is None:
            return None
        found.append(float(default if array is None else array.reshape(())))
    return found[0], found[1]


def fuse_activations(graph: Graph) -> Graph:
    """Relu and Clip become an attribute of the op before them.

    Requires that nothing else reads that op. A Clip with limits that TFLite has no name for goes
    where the grid behind it ends at the same limits, since rounding to it clips anyway.
    """
    readers = graph.readers()
    producers = graph.producers()
    gone: set[str] = set()
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        limits = limits_of(graph, node)
        source = node.input(0)
        before = producers.get(source.name)
        if limits is None or before is None or source.rounded or len(readers[source.name]) != 1:
            continue
        if before.op not in _TAKES_ACTIVATION or before.name in changed or _two_activations(graph, before):
            continue
        activation = _LIMITS.get(limits) or _saturates(graph, node, limits, readers[node.outputs[0]])
        if activation is None:
            continue
        changed[before.name] = replace(before, outputs=node.outputs, activation=activation)
        gone.add(node.name)
    return graph.with_nodes(changed.get(node.name, node) for node in graph.nodes if node.name not in gone)


def _two_activations(graph: Graph, node: Node) -> bool:
    """A product of two computed values is a BATCH_MATMUL, which fuses nothing."""
    return node.op == "MatMul" and graph.constant(node.input(1)) is None


def _saturates(graph: Graph, node: Node, limits: tuple[float, float], readers: list[Node]) -> str | None:
    grid = graph.values[node.outputs[0]].grid
    name = node.outputs[0]
    if grid is None or not all(o.rounded for reader in readers for o in reader.inputs if o.name == name):
        return None
    low, high = grid.limits
    slack = grid.scale[0] / 2
    if low < limits[0] - slack or high > limits[1] + slack:
        return None
    return "RELU" if limits[0] == 0 else "NONE"


def fuse_hard_swish(graph: Graph) -> Graph:
    """``x * HardSigmoid(x)`` with slope 1/6 becomes one HardSwish."""
    readers = graph.readers()
    producers = graph.producers()
    gone: set[str] = set()
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        gate = _gate_of(node, producers)
        if (
            gate is None
            or len(readers[gate.outputs[0]]) != 1
            or graph.values[gate.outputs[0]].grid is not None
        ):
            continue
        changed[node.name] = Node(node.name, "HardSwish", gate.inputs, node.outputs)
        gone.add(gate.name)
    return graph.with_nodes(changed.get(node.name, node) for node in graph.nodes if node.name not in gone)


def _gate_of(node: Node, producers: Mapping[str, Node]) -> Node | None:
    if node.op != "Mul":
        return None
    pairs: tuple[tuple[Operand, Operand], ...] = (
        (node.inputs[0], node.inputs[1]),
        (node.inputs[1], node.inputs[0]),
    )
    for value, gated in pairs:
        gate = producers.get(gated.name)
        if gate is None or gate.op != "HardSigmoid" or gate.inputs[0] != value:
            continue
        slope = (float(gate.get("alpha", 0.2)), float(gate.get("beta", 0.5)))
        if np.allclose(slope, _HARD_SIGMOID, atol=1e-4):
            return gate
    return None


def ungroup_transposed(graph: Graph) -> Graph:
    """Grouped ConvTranspose as an ungrouped one with block-diagonal weights: TFLite has no grouped form.

    Ensures the same results; zeros are exact on a symmetric grid.
    """
    values = dict(graph.values)
    nodes: list[Node] = []
    for node in graph.nodes:
        group = int(node.get("group", 1)) if node.op == "ConvTranspose" else 1
        weight = values[node.inputs[1].name] if group > 1 else None
        if weight is None or weight.array is None or not _zero_is_zero(weight):
            nodes.append(node)
            continue
        rows, columns = weight.shape[0] // group, weight.shape[1]
        full = np.zeros((weight.shape[0], columns * group, *weight.shape[2:]), weight.array.dtype)
        for index in range(group):
            part = slice(index * rows, (index + 1) * rows)
            full[part, index * columns : (index + 1) * columns] = weight.array[part]
        grid = weight.grid
        if grid is not None and grid.axis is not None:
            grid = replace(grid, scale=grid.scale * group, zero_point=grid.zero_point * group)
        name = f"{weight.name};ungrouped"
        values[name] = replace(weight, name=name, shape=full.shape, array=full, grid=grid)
        inputs = (node.inputs[0], replace(node.inputs[1], name=name), *node.inputs[2:])
        nodes.append(replace(node, inputs=inputs, attributes={**node.attributes, "group": 1}))
    return replace(graph, nodes=tuple(nodes), values=values)


def _zero_is_zero(weight: Value) -> bool:
    return weight.grid is None or weight.grid.symmetric
