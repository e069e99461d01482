"""A QDQ model as the linter's rules look at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgeq.errors import ModelError
from edgeq.types import COMPUTE_OPS

__all__ = ["QDQ_OPS", "Pair", "View", "node_label"]

QDQ_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_PASSES_INT8 = frozenset(
    {
        *("Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Ops through which TensorRT moves a DequantizeLinear; Resize and AveragePool are none (TensorRT-RTX 1.7)."""
_KEEPS_CONSTANT = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Pair:
    """The DequantizeLinear that a layer's operand comes from."""

    dequantize: onnx.NodeProto
    constant: bool
    """It restores a constant: a weight."""
    direct: bool = True
    """Nothing stands between it and the layer."""

    @property
    def scale(self) -> str:
        """Name of its scale."""
        return str(self.dequantize.input[1]) if len(self.dequantize.input) > 1 else ""


@dataclass(frozen=True)
class View:
    """An ONNX graph with its look-ups; nodes inside control flow are not looked at."""

    model: onnx.ModelProto
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)
    """Tensor -> the DequantizeLinear behind it, through ops that TensorRT passes INT8 through."""
    derived: set[str] = field(default_factory=set)
    """Constants, and constants in another type or shape."""

    @classmethod
    def of(cls, model: onnx.ModelProto) -> View:
        """The view of a model.

        Raises:
            ModelError: the nodes are not in the order of their data.
        """
        view = cls(model)
        view.constants.update({tensor.name: tensor for tensor in model.graph.initializer})
        view.derived.update(view.constants)
        made_by = {name for node in model.graph.node for name in node.output if name}
        for node in model.graph.node:
            late = [name for name in node.input if name in made_by and name not in view.producers]
            if late:
                raise ModelError(
                    f"{node_label(node)} reads {late[0]!r} before it is made: not a valid ONNX model",
                    fix="check it with onnx.checker, and export it again",
                )
            view._add(node)
        return view

    @property
    def opset(self) -> int:
        """Of the default domain; 0: not told."""
        found = [entry.version for entry in self.model.opset_import if entry.domain in _STANDARD]
        return max(found, default=0)

    def nodes(self, *op_types: str) -> Iterator[onnx.NodeProto]:
        """Nodes of the standard domain with one of these types, in graph order; such as read and make nothing
        are left out."""
        for node in self.model.graph.node:
            if node.op_type in op_types and node.domain in _STANDARD and node.input and node.output:
                yield node

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """A constant's values; None: computed, kept outside the file, or damaged."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError):
            return None

    def blocking(self, name: str) -> onnx.NodeProto | None:
        """The op between a float operand and the DequantizeLinear that all its inputs come from."""
        node = self.producers.get(name)
        if node is None or node.op_type in COMPUTE_OPS | QDQ_OPS:
            return None
        sources = [entry for entry in node.input if entry and entry not in self.derived]
        return node if sources and all(entry in self.pairs for entry in sources) else None

    def _add(self, node: onnx.NodeProto) -> None:
        """Take in the next node."""
        self.producers.update({name: node for name in node.output if name})
        for name in dict.fromkeys(node.input):
            if name:
                self.readers.setdefault(name, []).append(node)
        if not node.output or (not node.input and node.op_type != "Constant"):
            return
        if node.op_type == "Constant":
            self.derived.add(node.output[0])
            for entry in node.attribute:
                if entry.name == "value" and entry.HasField("t"):
                    self.constants[node.output[0]] = entry.t
        elif node.op_type in _KEEPS_CONSTANT and node.input[0] in self.derived:
            self.derived.add(node.output[0])
        elif node.op_type == "DequantizeLinear":
            self.pairs[node.output[0]] = Pair(node, self._restores_constant(node))
        elif node.op_type in _PASSES_INT8 and node.input[0] in self.pairs:
            behind = replace(self.pairs[node.input[0]], direct=False)
            self.pairs.update({name: behind for name in node.output if name})
        elif node.op_type == "Concat" and (joined := self._joined(node)) is not None:
            self.pairs[node.output[0]] = joined

    def _joined(self, node: onnx.NodeProto) -> Pair | None:
        """The pair of a Concat whose inputs all have one and the same scale."""
        found = [self.pairs.get(name) for name in node.input if name]
        known = [entry for entry in found if entry is not None]
        if not known or len(known) < len(found):
            return None
        scales = [self.array(entry.scale) for entry in known]
        first = scales[0]
        if first is None or any(scale is None or not np.array_equal(scale, first) for scale in scales):
            return None
        return replace(known[0], direct=False)

    def _restores_constant(self, node: onnx.NodeProto) -> bool:
        source = node.input[0]
        producer = self.producers.get(source)
        if producer is not None and producer.op_type == "QuantizeLinear" and producer.input:
            source = producer.input[0]
        return source in self.derived


def node_label(node: onnx.NodeProto) -> str:
    """Name of a node, or of its first output where it has none."""
    return str(node.name or (node.output[0] if node.output else node.op_type))
