"""Questions about an onnx-ir graph that several passes ask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.types import COMPUTE_OPS

__all__ = [
    "ACTIVATION_OPS",
    "activation_output",
    "add_constant",
    "constant_array",
    "head_nodes",
    "is_depthwise",
    "is_layer",
    "node_name",
    "position_count",
    "silu_of",
    "tail_nodes",
    "users",
    "weight_axis",
]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "PRelu", "Elu", "Gelu"}
)
ACTIVATION_OPS = _ACTIVATIONS | {"Mul"}
"""What runtimes fuse into the convolution before it; SiLU and gates end in a multiplication."""


def node_name(node: ir.Node) -> str:
    """Name of a node; normalisation gives every node one."""
    return node.name or f"{node.op_type}:{node.outputs[0].name}"


def users(value: ir.Value) -> list[ir.Node]:
    """Nodes that read a value, each once."""
    return list(dict.fromkeys(use.node for use in value.uses()))


def constant_array(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The array of an initializer, or None for a computed value."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def add_constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Register an initializer; the name is made unique."""
    while name in graph.initializers:
        name += "_"
    # Not ir.tensor(): its checks of what it was given cost more than the insertion of all constants.
    tensor = ir.Tensor(np.array(array, order="C"), name=name)
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    graph.register_initializer(value)
    return value


def is_depthwise(node: ir.Node) -> bool:
    """Whether a node is a convolution with one input channel per group."""
    weight = constant_array(node.inputs[1]) if node.op_type == "Conv" else None
    if weight is None:
        return False
    group = node.attributes.get_int("group", 1)
    return group > 1 and weight.shape[1] == 1


def is_layer(node: ir.Node) -> bool:
    """Whether a node is a convolution or matrix product with constant weights."""
    return node.op_type in COMPUTE_OPS and constant_array(node.inputs[1]) is not None


def weight_axis(node: ir.Node) -> int:
    """Output channel axis of a node's weight."""
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
        return 1
    return 1 if node.op_type == "MatMul" else 0


def position_count(node: ir.Node) -> int:
    """Height times width of what a node makes; 1 where it has neither, or they are not known."""
    shape = node.outputs[0].shape
    sides = [] if shape is None else list(shape)[2:]
    return int(np.prod([side if isinstance(side, int) else 1 for side in sides]))


def silu_of(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """``(sigmoid, x)`` where the node is the multiplication of ``x * sigmoid(x)``, else None."""
    if node.op_type != "Mul" or len(node.inputs) != 2:
        return None
    for value, gate in (node.inputs, reversed(node.inputs)):
        if value is None or gate is None:
            continue
        producer = gate.producer()
        if producer is not None and producer.op_type == "Sigmoid" and producer.inputs[0] is value:
            return (producer, value) if len(users(gate)) == 1 else None
    return None


def activation_output(value: ir.Value) -> tuple[list[ir.Node], ir.Value]:
    """The activation that follows a convolution's output.

    Returns:
        Its nodes and its output; no nodes and the value itself where none follows.
    """
    readers = users(value)
    if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS:
        return readers, readers[0].outputs[0]
    if len(readers) == 2:
        for node in readers:
            found = silu_of(node)
            if found is not None and found[1] is value and found[0] in readers:
                return [found[0], node], node.outputs[0]
    return [], value


def tail_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Nodes behind the last weighted convolutions: decode, scores, concatenation of the outputs.

    Walks back from the outputs and stops at a convolution or matrix product with constant weights.
    Nodes that also feed such an op are not part of the tail.
    """
    tail: set[ir.Node] = set()
    stack = [value.producer() for value in graph.outputs]
    while stack:
        node = stack.pop()
        if node is None or node in tail or _is_weighted(node):
            continue
        tail.add(node)
        stack += [value.producer() for value in node.inputs if value is not None]
    return _closed(tail)


def head_nodes(graph: ir.Graph, tail: set[ir.Node]) -> list[ir.Node]:
    """The last weighted nodes, those whose outputs go to the tail or are outputs themselves."""
    return [
        node
        for node in graph
        if _is_weighted(node)
        and node not in tail
        and all(user in tail for value in node.outputs for user in users(value))
    ]


def _is_weighted(node: ir.Node) -> bool:
    if _is_dfl_integral(node):
        return False
    if node.op_type == "MatMul":
        return any(constant_array(value) is not None for value in node.inputs)
    return node.op_type in _WEIGHTED


def _is_dfl_integral(node: ir.Node) -> bool:
    """The expectation over bins behind a softmax that YOLOv8's box decoding writes as a 1x1 convolution.

    Source: Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388.
    """
    weight = constant_array(node.inputs[1]) if node.op_type == "Conv" else None
    if weight is None or weight.shape[0] != 1:
        return False
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    while producer is not None and producer.op_type in ("Transpose", "Reshape"):
        producer = producer.inputs[0].producer() if producer.inputs[0] is not None else None
    return producer is not None and producer.op_type == "Softmax"


def _closed(nodes: set[ir.Node]) -> set[ir.Node]:
    """Without the nodes that something outside the set reads, until none is left."""
    kept = set(nodes)
    while True:
        leaking = {node for node in kept if _read_outside(node.outputs, kept)}
        if not leaking:
            return kept
        kept -= leaking


def _read_outside(values: Iterable[ir.Value], nodes: set[ir.Node]) -> bool:
    return any(user not in nodes for value in values for user in users(value))
