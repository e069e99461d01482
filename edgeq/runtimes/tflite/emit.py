"""What an op's function writes with: operands in the form and order that it wants, and new tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError
from edgeq.runtimes.tflite.graph import Graph, Grid, Node, Operand, Value
from edgeq.runtimes.tflite.layout import LayoutPlan, Perm, compatible, identity
from edgeq.runtimes.tflite.versions import op_version
from edgeq.runtimes.tflite.writer import Operator, Tensor, Writer

__all__ = ["Emitter", "Form"]

_NARROW = {"int64": "int32", "uint64": "int32", "uint32": "int32", "float64": "float32"}
"""TFLite's kernels count in int32."""
_SMALL_BYTES = 1024
"""Constants under this size stay float32: their DEQUANTIZE op would take more room than it saves."""

_MUL_RATIO = (1 / 65536, 256.0)
"""Products of input scales over the output's scale that XNNPACK's MUL takes."""

Form = str
"""exact: float as computed; integer: on the grid; restored: float again behind the grid."""


class Emitter:
    """Writes tensors and operators for one graph."""

    def __init__(self, graph: Graph, layouts: LayoutPlan, *, float16_weights: bool, hybrid: bool) -> None:
        self.graph, self.layouts, self.writer = graph, layouts, Writer()
        self.hybrid = hybrid
        """Weights of float layers stay int8 and activations are quantised while running."""
        self._float16 = float16_weights
        self._made: dict[tuple[str, Form, Perm], int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], int] = {}
        self.node: Node | None = None
        """The node that is being written."""
        self.wrote: dict[int, Node] = {}
        """Tensor -> the ONNX node that it comes from."""
        self.entries: set[int] = set()
        """Tensors that are inputs of the model."""
        self.finished: set[int] = set()
        """Tensors that are outputs of the model."""

    # -- operands ------------------------------------------------------------------------------------

    def value(self, operand: Operand) -> Value:
        """The value behind an operand."""
        return self.graph.values[operand.name]

    def order(self, name: str) -> Perm:
        """Storage order of a value."""
        found = self.layouts.values.get(name)
        return identity(len(self.graph.values[name].shape)) if found is None else found

    def wanted(self, node: Node, index: int) -> Perm:
        """The order in which a node takes an input."""
        found = self.layouts.wanted.get((node.name, index))
        return self.order(node.inputs[index].name) if found is None else found

    def input(self, node: Node, index: int = 0) -> int:
        """Tensor of an operand in the form and order that the node takes."""
        operand = node.inputs[index]
        return self.fetch(operand, self.wanted(node, index), integer=node.integer)

    def fetch(self, operand: Operand, order: Perm, *, integer: bool) -> int:
        """Tensor of an operand in a form and order."""
        form = "integer" if integer else "restored" if operand.rounded else "exact"
        return self._get(operand.name, form, order)

    def stored(self, name: str, order: Perm | None = None) -> tuple[int, ...]:
        """Shape of a value in storage order."""
        value = self.graph.values[name]
        return tuple(value.shape[axis] for axis in (self.order(name) if order is None else order))

    def _get(self, name: str, form: Form, order: Perm) -> int:
        value = self.graph.values[name]
        if form != "exact" and value.grid is None:
            form = "exact"
        found = self._made.get((name, form, order))
        if found is None:
            made = self._constant_form if value.constant else self._computed_form
            found = self._made[name, form, order] = made(value, form, order)
        return found

    def _constant_form(self, value: Value, form: Form, order: Perm) -> int:
        if value.array is None:
            raise AssertionError(value.name)
        array = np.transpose(value.array, order)
        if value.grid is not None and form == "integer":
            return self.constant(array, value.name, grid=value.grid)
        return self.constant(
            self.graph.constant(Operand(value.name)) if value.grid else value.array, value.name, order=order
        )

    def _computed_form(self, value: Value, form: Form, order: Perm) -> int:
        stored = self.order(value.name)
        if form == "exact" and (value.name, "exact", stored) not in self._made:
            form = "restored"
        if order != stored and form != "restored":
            return self._reorder(value, form, stored, order)
        if form == "integer":
            source = self._get(value.name, "exact", stored)
            return self._convert("QUANTIZE", source, f"{value.name};quantized", value, integer=True)
        if form == "restored":
            source = self._get(value.name, "integer", order)
            return self._convert("DEQUANTIZE", source, f"{value.name};dequantized", value, integer=False)
        raise AssertionError(f"{value.name} was read before it was written")

    def _convert(self, code: str, source: int, name: str, value: Value, *, integer: bool) -> int:
        shape = self.writer.tensors[source].shape
        made = self.tensor(name, shape, value.dtype, value.grid if integer else None)
        self.op(code, [source], [made])
        return made

    def _reorder(self, value: Value, form: Form, stored: Perm, order: Perm) -> int:
        """TRANSPOSE, or RESHAPE where only axes of length 1 change places."""
        source = self._get(value.name, form, stored)
        shape = tuple(value.shape[axis] for axis in order)
        grid = value.grid if form == "integer" else None
        made = self.tensor(f"{value.name};transposed", shape, value.dtype, grid)
        if compatible(value.shape, stored, order):
            self.reshape(source, made)
        else:
            steps = np.asarray([stored.index(axis) for axis in order], np.int32)
            self.op("TRANSPOSE", [source, self.constant(steps)], [made], "TransposeOptions")
        return made

    # -- tensors -------------------------------------------------------------------------------------

    def constant(
        self,
        array: npt.NDArray[Any] | None,
        name: str = "",
        *,
        grid: Grid | None = None,
        order: Perm | None = None,
        keep_type: bool = False,
    ) -> int:
        """A constant tensor; equal ones are written once.

        Args:
            array: its values.
            name: None given: a number.
            grid: what its integers mean.
            order: storage order to bring it into.
            keep_type: 64-bit integers stay as they are.
        """
        if array is None:
            raise AssertionError(f"{name} is no constant")
        array = np.ascontiguousarray(array if order is None else np.transpose(array, order))
        dtype = str(array.dtype) if keep_type else _NARROW.get(str(array.dtype), str(array.dtype))
        if dtype != str(array.dtype):
            if dtype == "int32":
                info = np.iinfo(np.int32)
                array = np.clip(array, info.min, info.max)
            array = array.astype(dtype)
        key = (f"{dtype} {grid}", array.shape, array.tobytes())
        if key not in self._constants:
            name = name or f"constant_{len(self._constants)}"
            self._constants[key] = self.writer.tensor(Tensor(name, array.shape, dtype, grid, array))
        return self._constants[key]

    def weight(self, array: npt.NDArray[np.float32], name: str) -> int:
        """A float constant: float16 behind a DEQUANTIZE where that is asked for, which XNNPACK folds."""
        if not self._float16 or array.nbytes < _SMALL_BYTES:
            return self.constant(array.astype(np.float32), name)
        if float(np.max(np.abs(array))) > float(np.finfo(np.float16).max):
            raise ModelError(
                f"TFLite: {name!r} has values that float16 cannot hold", fix="keep float32 weights"
            )
        return self.restored(self.constant(array.astype(np.float16), f"{name};float16"), name)

    def restored(self, stored: int, name: str) -> int:
        """A constant of a smaller type as float32, by one DEQUANTIZE for all its readers."""
        shape = self.writer.tensors[stored].shape
        key = (f"dequantized {stored}", shape, b"")
        if key not in self._constants:
            made = self.tensor(f"{name};dequantized", shape, "float32")
            self.op("DEQUANTIZE", [stored], [made])
            self._constants[key] = made
        return self._constants[key]

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str, grid: Grid | None = None) -> int:
        """A computed tensor; with a grid its type is the grid's."""
        kind = grid.dtype if grid is not None else _NARROW.get(dtype, dtype)
        made = self.writer.tensor(Tensor(name, tuple(shape), kind, grid))
        if self.node is not None:
            self.wrote[made] = self.node
        return made

    def scratch(
        self, node: Node, what: str, shape: tuple[int, ...], like: Value, grid: Grid | None = None
    ) -> int:
        """A tensor inside one node's lowering, on the grid that ``like`` has where the node is integer."""
        chosen = (grid or like.grid) if node.integer else None
        return self.tensor(f"{node.outputs[0]};{what}", shape, like.dtype, chosen)

    def output(self, node: Node, index: int = 0) -> int:
        """The tensor of a node's output, in the order that the layout plan gives it."""
        name = node.outputs[index]
        value = self.graph.values[name]
        made = self.tensor(name, self.stored(name), value.dtype, value.grid if node.integer else None)
        self._made[name, "integer" if node.integer else "exact", self.order(name)] = made
        return made

    def alias(self, node: Node, tensor: int, index: int = 0) -> None:
        """The output is a tensor that is there already."""
        name = node.outputs[index]
        self._made[name, "integer" if node.integer else "exact", self.order(name)] = tensor

    def moved(self, node: Node, index: int = 0) -> int:
        """Where an op that moves values may write: the output, or a tensor on the input's grid before it.

        TFLite's moving kernels want one grid on both sides; another one on the output takes a second step,
        which :meth:`settle` writes.
        """
        source = self.value(node.inputs[0])
        target = self.graph.values[node.outputs[index]]
        if not node.integer or source.grid == target.grid:
            return self.output(node, index)
        return self.tensor(f"{target.name};before", self.stored(target.name), target.dtype, source.grid)

    def settle(self, node: Node, made: int, index: int = 0) -> None:
        """The step from the input's grid to the output's, if there is one."""
        name = node.outputs[index]
        if (name, "integer" if node.integer else "exact", self.order(name)) not in self._made:
            self.requantise(made, self.output(node, index))

    def entry(self, name: str, tensor: int) -> None:
        """Register an input of the model."""
        value = self.graph.values[name]
        integer = self.writer.tensors[tensor].grid is not None
        self.entries.add(tensor)
        self._made[value.name, "integer" if integer else "exact", self.order(name)] = tensor

    # -- operators -----------------------------------------------------------------------------------

    def op(
        self,
        code: str,
        inputs: list[int],
        outputs: list[int],
        options: str | None = None,
        **fields: Any,
    ) -> None:
        """Append an operator."""
        tensors = [self.writer.tensors[index] for index in (*inputs, *outputs) if index >= 0]
        version = op_version(code, tensors, fields)
        self.writer.operator(Operator(code, tuple(inputs), tuple(outputs), options, fields, version))

    def requantise(self, source: int, target: int) -> None:
        """From one grid to another of the same type.

        XNNPACK's QUANTIZE between two int8 grids multiplies with 8 bits of the scale, which puts up to a
        tenth of the values one step off; its MUL by a constant 1 rounds once, in float32.
        """
        a, b = self.writer.tensors[source].grid, self.writer.tensors[target].grid
        ratio = a.scale[0] / b.scale[0] if a is not None and b is not None else 0.0
        if a is None or a.dtype != "int8" or not _MUL_RATIO[0] <= ratio < _MUL_RATIO[1]:
            self.op("QUANTIZE", [source], [target])
            return
        one = self.constant(np.asarray(1, np.int8), "one", grid=Grid((1.0,), (0,), "int8"))
        self.op("MUL", [source, one], [target], "MulOptions")

    def reshape(self, source: int, target: int) -> None:
        """RESHAPE to the target's shape."""
        shape = np.asarray(self.writer.tensors[target].shape, np.int32)
        self.op("RESHAPE", [source, self.constant(shape)], [target], "ReshapeOptions", newShape=shape)

    def activation(self, node: Node) -> int:
        """Value of the fused activation in the schema's enum."""
        return {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}[node.activation]

    def rename(self, tensor: int, name: str) -> None:
        """Give a tensor a name that no other tensor keeps."""
        for entry in self.writer.tensors:
            if entry.name == name:
                entry.name = f"{name};inner"
        self.writer.tensors[tensor].name = name
