"""From ONNX to `Graph`: pairs of QuantizeLinear and DequantizeLinear become grids of values.

Requires what `edgeq.model.normalize` ensures: static shapes, constants as initializers, opset 13 or later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.quantize.graph import constant_array, node_name
from edgeq.runtimes.onnx_graph import PASSED_ON, attributes_of, channel_axis, read_onnx
from edgeq.runtimes.tflite.graph import ABSENT, Graph, Grid, Node, Operand, Value

__all__ = ["read_graph"]

_NORMALISE = "load the source with edgeq, which makes its shapes static, and lower what it gives"


def read_graph(data: bytes) -> Graph:
    """The graph of a serialised float or QDQ model.

    Raises:
        ModelError: not ONNX, shapes that are not static, or a quantisation that TFLite has not.
    """
    model = read_onnx(data)
    metadata = {str(key): str(value) for key, value in model.metadata_props.items()}
    return _Reader(model.graph, metadata).read()


class _Reader:
    """Follows the nodes in order and keeps what each ONNX value stands for."""

    def __init__(self, graph: ir.Graph, metadata: Mapping[str, str]) -> None:
        self._graph, self._metadata = graph, metadata
        self._values: dict[str, Value] = {}
        self._nodes: list[Node] = []
        self._stands_for: dict[str, Operand] = {}
        """Outputs of Q, DQ and Identity -> the operand that they are."""
        self._quantised: dict[str, str] = {}
        """Output of Q -> value whose rounded form it is."""

    def read(self) -> Graph:
        for value in self._graph.inputs:
            self._add(value)
        for node in self._graph:
            if node.op_type == "QuantizeLinear":
                self._quantise(node)
            elif node.op_type == "DequantizeLinear":
                self._dequantise(node)
            elif node.op_type in PASSED_ON:
                self._stands_for[_name(node.outputs[0])] = self._operand(node.inputs[0])
            else:
                self._plain(node)
        inputs = tuple(_name(value) for value in self._graph.inputs)
        outputs = tuple((_name(value), self._operand(value)) for value in self._graph.outputs)
        return Graph(tuple(self._nodes), self._values, inputs, outputs, self._metadata)

    def _plain(self, node: ir.Node) -> None:
        operands = tuple(self._operand(value) for value in node.inputs)
        for value in node.outputs:
            if value.name:
                self._add(value)
        outputs = tuple(value.name or "" for value in node.outputs)
        self._nodes.append(Node(node_name(node), node.op_type, operands, outputs, attributes_of(node)))

    def _quantise(self, node: ir.Node) -> None:
        source, output = self._operand(node.inputs[0]), _name(node.outputs[0])
        value, grid = self._values[source.name], _grid(node, node.inputs[1:])
        if grid.axis is not None:
            raise ModelError(
                f"TFLite: QuantizeLinear {node_name(node)!r} has one scale per channel for an activation",
                fix="TFLite takes one per tensor: quantise for a tflite target",
            )
        if value.grid is None and not value.constant and not source.rounded:
            self._values[value.name] = replace(value, grid=grid)
            self._quantised[output] = value.name
        elif value.grid == grid:
            self._quantised[output] = value.name
        else:
            self._values[output] = Value(output, value.shape, "float32", None, grid)
            self._nodes.append(Node(node_name(node), "QuantizeLinear", (source,), (output,), {}, True))
            self._quantised[output] = output

    def _dequantise(self, node: ir.Node) -> None:
        source, output, grid = node.inputs[0], _name(node.outputs[0]), _grid(node, node.inputs[1:])
        array = constant_array(source)
        if array is not None:
            self._values[output] = Value(output, array.shape, "float32", array, grid)
            self._stands_for[output] = Operand(output, rounded=True)
            return
        name = self._quantised.get(_name(source))
        if name is None or self._values[name].grid != grid:
            raise ModelError(
                f"TFLite: DequantizeLinear {node_name(node)!r} has no QuantizeLinear "
                "with the same scale before it",
                fix="quantise the float model with edgeq for a tflite target",
            )
        self._stands_for[output] = Operand(name, rounded=True)

    def _operand(self, value: ir.Value | None) -> Operand:
        if value is None or not value.name:
            return ABSENT
        if value.name in self._stands_for:
            return self._stands_for[value.name]
        if value.name not in self._values:
            self._add(value)
        return Operand(value.name)

    def _add(self, value: ir.Value) -> None:
        name, array = _name(value), constant_array(value)
        if array is not None:
            self._values[name] = Value(name, array.shape, str(array.dtype), array)
            return
        shape = value.shape
        if (
            shape is None
            or value.dtype is None
            or any(not isinstance(size, int) or size < 1 for size in shape)
        ):
            raise ModelError(f"TFLite: the shape of {name!r} is not known: {shape}", fix=_NORMALISE)
        dtype = str(np.dtype(value.dtype.numpy()))
        self._values[name] = Value(name, tuple(int(size) for size in shape if isinstance(size, int)), dtype)


def _name(value: ir.Value | None) -> str:
    if value is None or not value.name:
        raise ModelError("a value of the model has no name", fix=_NORMALISE)
    return value.name


def _grid(node: ir.Node, parameters: Any) -> Grid:
    scale = constant_array(parameters[0])
    zero = constant_array(parameters[1]) if len(parameters) > 1 else None
    if scale is None or (len(parameters) > 1 and zero is None):
        raise ModelError(
            f"TFLite: the scale of {node.op_type} {node_name(node)!r} is computed by the model",
            fix="quantise statically with edgeq",
        )
    zero_point: npt.NDArray[Any] = np.zeros(scale.shape, np.uint8) if zero is None else zero
    dtype = str(zero_point.dtype)
    if dtype not in ("int8", "int16", "int32"):
        raise ModelError(
            f"TFLite: {node.op_type} {node_name(node)!r} makes {dtype}; its kernels take int8 or int16",
            fix="quantise for a tflite target",
        )
    channels = scale.size if scale.ndim else 1
    axis = node.attributes.get_int("axis", 1) if channels > 1 else None
    rank = len(node.inputs[0].shape) if node.inputs[0] is not None and node.inputs[0].shape is not None else 0
    return Grid(
        tuple(float(np.float32(entry)) for entry in scale.reshape(-1)),
        tuple(int(entry) for entry in zero_point.reshape(-1)),
        dtype,
        None if axis is None else channel_axis(axis, rank),
    )
