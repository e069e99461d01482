"""What lowering reads: an ONNX model as nodes, constants and shapes.

Requires what `edgeq.model.normalize` ensures: static shapes and opset 13 or later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.quantize.graph import constant_array, node_name, tail_nodes
from edgeq.runtimes.onnx_graph import PASSED_ON, attributes_of, read_onnx

__all__ = ["Array", "Node", "Source", "read_source", "refuse"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Node:
    """An operator; an input that is not given has an empty name."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tail: bool = False
    """Behind the last weighted layers: decodes the outputs."""

    def input(self, index: int) -> str:
        """Name of an input, or empty."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute or its default."""
        return self.attributes.get(attribute, default)


@dataclass(frozen=True)
class Source:
    """Nodes in order of computation, constants and shapes by name."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def quantised(self) -> bool:
        """Whether activations are rounded anywhere."""
        return any(node.op == "QuantizeLinear" for node in self.nodes)


def refuse(node: Node, why: str, fix: str) -> ModelError:
    """The error for a node that cannot be lowered."""
    return ModelError(f"Core ML: {node.op} node {node.name!r} cannot be lowered: {why}", fix=fix)


def read_source(data: bytes) -> Source:
    """The nodes of a serialised float or QDQ model, with ``x * sigmoid(x)`` as one SiLU.

    Raises:
        ModelError: not ONNX, or shapes that are not static.
    """
    model = read_onnx(data)
    constants = {
        name: array
        for name, value in model.graph.initializers.items()
        if (array := constant_array(value)) is not None
    }
    inputs = [value for value in model.graph.inputs if value.name not in constants]
    source = Source(
        nodes=_nodes(model.graph),
        constants=constants,
        shapes={name: array.shape for name, array in constants.items()} | _shapes(model.graph),
        inputs=tuple(value.name or "" for value in inputs),
        outputs=tuple(value.name or "" for value in model.graph.outputs),
        metadata={str(key): str(value) for key, value in model.metadata_props.items()},
    )
    _check_inputs(source)
    return _with_silu(source)


def _nodes(graph: ir.Graph) -> tuple[Node, ...]:
    tail = tail_nodes(graph)
    return tuple(
        Node(
            node_name(node),
            node.op_type,
            tuple("" if value is None else value.name or "" for value in node.inputs),
            tuple(value.name or "" for value in node.outputs),
            attributes_of(node),
            node in tail,
        )
        for node in graph
    )


def _shapes(graph: ir.Graph) -> dict[str, tuple[int, ...]]:
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    return {
        value.name: tuple(size for size in value.shape if isinstance(size, int))
        for value in values
        if value.name and value.shape is not None and all(isinstance(size, int) for size in value.shape)
    }


def _check_inputs(source: Source) -> None:
    for name in source.inputs:
        shape = source.shapes.get(name)
        if shape is None or any(size < 1 for size in shape):
            raise ModelError(
                f"Core ML: the shape of the input {name!r} is not known",
                fix="load the source with edgeq, which makes its shapes static, and lower what it gives",
            )


def _with_silu(source: Source) -> Source:
    """``x * sigmoid(x)`` becomes one Silu where nothing else reads the sigmoid; Identity goes."""
    stands_for: dict[str, str] = {}
    nodes: list[Node] = []
    for node in source.nodes:
        node = replace(node, inputs=tuple(stands_for.get(name, name) for name in node.inputs))
        if node.op in PASSED_ON and node.outputs[0] not in source.outputs:
            stands_for[node.outputs[0]] = node.inputs[0]
        else:
            nodes.append(node)
    reads = Counter(name for node in nodes for name in node.inputs)
    gates = {
        node.outputs[0]: node
        for node in nodes
        if node.op == "Sigmoid" and reads[node.outputs[0]] == 1 and node.outputs[0] not in source.outputs
    }
    fused: dict[str, Node] = {}
    gone: set[str] = set()
    for node in nodes:
        for value, gate in (node.inputs, node.inputs[::-1]) if node.op == "Mul" else ():
            if gate in gates and gates[gate].inputs[0] == value and node.name not in fused:
                fused[node.name] = replace(node, op="Silu", inputs=(value,))
                gone.add(gates[gate].name)
    kept = tuple(fused.get(node.name, node) for node in nodes if node.name not in gone)
    return replace(source, nodes=kept)


def as_ints(array: Array) -> list[int]:
    """Plain integers of an array."""
    return [int(entry) for entry in np.asarray(array).reshape(-1)]
