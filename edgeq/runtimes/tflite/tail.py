"""Cuts the float decoding off an integer model: for devices that compute in integers only.

The body's outputs are the head tensors, each on a grid of its own; the tail takes them as floats and
gives the source's outputs. Both are graphs that lower as usual.
"""

from __future__ import annotations

from dataclasses import replace

from edgeq.errors import ModelError
from edgeq.runtimes.tflite.graph import Graph, Node, Operand

__all__ = ["split_tail"]

_NAMED = 3


def split_tail(graph: Graph) -> tuple[Graph, Graph | None]:
    """The integer body, and the float tail behind it or None where there is none.

    Requires `mark_integer`. Ensures that every node of the body is integer, and that the tail computes
    the source's outputs from the body's.

    Raises:
        ModelError: a float layer in front of an integer one, or an output that is on no grid.
    """
    tail = _tail_nodes(graph)
    body = [node for node in graph.nodes if node.name not in tail]
    inside = [node for node in body if not node.integer]
    if inside:
        names = ", ".join(node.name for node in inside[:_NAMED])
        more = "" if len(inside) <= _NAMED else f" and {len(inside) - _NAMED} more"
        raise ModelError(
            f"an integer-only model cannot have float layers between integer ones: {names}{more}",
            fix="leave --io int8 out; or, where a recipe keeps them in float, set them to int8 there "
            "(attention, its softmax and its products of activations, has no integer form here)",
        )
    if not tail:
        return graph, None
    made = {name for node in body for name in node.outputs} | set(graph.inputs)
    behind = [node for node in graph.nodes if node.name in tail]
    read = [operand for node in behind for operand in node.inputs] + [entry for _, entry in graph.outputs]
    border = tuple(dict.fromkeys(operand.name for operand in read if operand.name in made))
    for name in border:
        if graph.values[name].grid is None:
            raise ModelError(
                f"{name!r} cannot leave the model as an integer: it is on no grid",
                fix="quantise the layer that makes it, or lower with float inputs and outputs",
            )
    front = replace(
        graph, nodes=tuple(body), outputs=tuple((name, Operand(name, rounded=True)) for name in border)
    )
    return front, _tail_graph(graph, behind, border)


def _tail_nodes(graph: Graph) -> set[str]:
    """Names of the float nodes that no integer node comes after."""
    readers = graph.readers()
    found: set[str] = set()
    for node in reversed(graph.nodes):
        after = [reader for name in node.outputs for reader in readers.get(name, []) if reader.name]
        if not node.integer and all(reader.name in found for reader in after):
            found.add(node.name)
    return found


def _tail_graph(graph: Graph, nodes: list[Node], border: tuple[str, ...]) -> Graph:
    values = {**graph.values, **{name: replace(graph.values[name], grid=None) for name in border}}

    def exact(operand: Operand) -> Operand:
        return Operand(operand.name) if operand.name in border else operand

    moved = tuple(replace(node, inputs=tuple(map(exact, node.inputs))) for node in nodes)
    outputs = tuple((name, exact(operand)) for name, operand in graph.outputs)
    return Graph(moved, values, border, outputs, graph.metadata)
