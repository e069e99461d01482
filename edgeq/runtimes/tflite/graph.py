"""The graph between ONNX and TFLite: QuantizeLinear/DequantizeLinear pairs are properties of values here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError

__all__ = ["ABSENT", "Array", "Graph", "Grid", "Node", "Operand", "Value", "refuse"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """``real = scale * (integer - zero_point)``, per tensor or along one axis."""

    scale: tuple[float, ...]
    """One, or one per channel; float32 values."""
    zero_point: tuple[int, ...]
    dtype: str
    """numpy's name: int8, int16, int32."""
    axis: int | None = None
    """Logical axis of the channels; None: per tensor."""

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is 0."""
        return not any(self.zero_point)

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest real value; per tensor only."""
        info = np.iinfo(self.dtype)
        scale, zero = self.scale[0], self.zero_point[0]
        return (int(info.min) - zero) * scale, (int(info.max) - zero) * scale

    def restore(self, array: Array) -> npt.NDArray[np.float32]:
        """Real values of integers, float32, same shape."""
        shape = [] if self.axis is None else [-1 if i == self.axis else 1 for i in range(array.ndim)]
        scale = np.asarray(self.scale, np.float32).reshape(shape)
        zero = np.asarray(self.zero_point, np.float32).reshape(shape)
        return np.asarray((array.astype(np.float32) - zero) * scale, np.float32)

    def rounded(self, array: Array) -> Array:
        """Integers nearest to real values; per tensor only."""
        info = np.iinfo(self.dtype)
        values = np.rint(np.asarray(array, np.float64) / self.scale[0]) + self.zero_point[0]
        return np.asarray(np.clip(values, info.min, info.max), self.dtype)


@dataclass(frozen=True)
class Value:
    """A tensor as ONNX sees it: logical axes, before any layout."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """numpy's name of the exact form; that of the rounded form is the grid's."""
    array: Array | None = None
    """Constants only; integers where there is a grid."""
    grid: Grid | None = None

    @property
    def constant(self) -> bool:
        """Whether it is known now."""
        return self.array is not None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Operand:
    """A value as one reader takes it."""

    name: str
    """Empty: an optional input that is not given."""
    rounded: bool = False
    """Read behind its QuantizeLinear/DequantizeLinear pair."""


ABSENT = Operand("")


@dataclass(frozen=True)
class Node:
    """An operator."""

    name: str
    op: str
    inputs: tuple[Operand, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    integer: bool = False
    """Computes on the integers of its operands' grids."""
    activation: str = "NONE"
    """Fused behind it: NONE, RELU, RELU6, RELU_N1_TO_1."""

    def input(self, index: int) -> Operand:
        """The operand, or `ABSENT`."""
        return self.inputs[index] if index < len(self.inputs) else ABSENT

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute or its default."""
        return self.attributes.get(attribute, default)


@dataclass(frozen=True)
class Graph:
    """Nodes in order of computation, values by name."""

    nodes: tuple[Node, ...]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, Operand], ...]
    """(name that the caller knows, what it holds)."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """The same graph with other nodes."""
        return replace(self, nodes=tuple(nodes))

    def readers(self) -> dict[str, list[Node]]:
        """Value name -> nodes that read it; an output of the graph counts as a reader named ''."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(operand.name for operand in node.inputs if operand.name):
                found.setdefault(name, []).append(node)
        for _, operand in self.outputs:
            found.setdefault(operand.name, []).append(Node("", "", (operand,), ()))
        return found

    def producers(self) -> dict[str, Node]:
        """Value name -> the node that makes it."""
        return {name: node for node in self.nodes for name in node.outputs}

    def constant(self, operand: Operand) -> Array | None:
        """The real values of a constant operand; None: not given or computed."""
        value = self.values.get(operand.name)
        if value is None or value.array is None:
            return None
        return value.array if value.grid is None else value.grid.restore(value.array)


def refuse(node: Node, why: str, fix: str) -> ModelError:
    """The error for a node that cannot be lowered."""
    return ModelError(f"TFLite: {node.op} node {node.name!r} cannot be lowered: {why}", fix=fix)
