"""Writes MIL operations for nodes: values by name, shared constants, and the precision of each node."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from hashlib import sha256
from itertools import count, product
from typing import Any

import numpy as np

from edgeq.errors import ModelError
from edgeq.runtimes.coreml.source import Array, Node, Source, refuse

__all__ = ["Emitter", "identifier", "short_names"]

_FIXED = "export the model with a fixed input size, so that it is a constant"
_HALF = "fp16"
_LAYERS = frozenset({"conv", "conv_transpose", "linear", "matmul"})
_FIRST = string.ascii_letters
_LATER = string.ascii_letters + string.digits
_RESERVED = frozenset({"any", "bool", "dict", "fn", "i4", "i8", "pad", "ui"})
"""Short words that mean something in MIL's own text form."""


def short_names() -> Iterator[str]:
    """Identifiers without end, the shortest first: each stands in a program four times or more."""
    for length in count(1):
        for first, *later in product(_FIRST, *([_LATER] * (length - 1))):
            name = first + "".join(later)
            if name not in _RESERVED:
                yield name


def identifier(name: str) -> str:
    """A name as MIL takes it: letters, digits and underscores, no digit first."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name) or "v"
    return f"_{text}" if text[0].isdigit() else text


class Emitter:
    """One program in the making.

    Float values are float16 or float32, each node in one of them; what it reads in the other is cast.
    """

    def __init__(self, source: Source, *, half: bool, int8_weights: bool = False) -> None:
        from coremltools.converters.mil import Builder
        from coremltools.converters.mil.mil import types

        self.source, self.half, self.int8_weights = source, half, int8_weights
        self.builder: Any = Builder
        self._types = types
        self.values: dict[str, Any] = {}
        """ONNX value -> MIL variable."""
        self.layers: dict[str, str] = {}
        """MIL value -> ONNX node, for what multiplies."""
        self.node: Node | None = None
        self._names: set[str] = set()
        self._counts: dict[str, int] = {}
        self._short = short_names()
        self._results = {identifier(name) for name in source.outputs}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Any] = {}
        self._casts: dict[tuple[str, bool], Any] = {}

    @property
    def float_dtype(self) -> type[np.floating[Any]]:
        """numpy's type of the current node's floats."""
        return np.float16 if self.half_now else np.float32

    @property
    def half_now(self) -> bool:
        """Whether the current node computes in float16: the decoding does not, its boxes are pixels."""
        return self.half and not (self.node is not None and self.node.tail)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value, from MIL's own inference where it has been written."""
        if name in self.values:
            return tuple(int(size) for size in self.values[name].shape)
        return self.source.shapes[name]

    def constant(self, node: Node, index: int) -> Array | None:
        """The array of an input; None: not given or computed."""
        return self.source.constants.get(node.input(index))

    def fixed(self, node: Node, index: int, what: str) -> Array:
        """The array of an input that has to be a constant.

        Raises:
            ModelError: the model computes it.
        """
        array = self.constant(node, index)
        if array is None:
            raise refuse(node, f"its {what} is not a constant", _FIXED)
        return array

    def input(self, node: Node, index: int) -> Any:
        """An input as a variable in the node's precision, constants too.

        Raises:
            ModelError: it is not given or was not written.
        """
        name = node.input(index)
        if name in self.source.constants:
            return self.share(self.typed(self.source.constants[name]))
        if name not in self.values:
            raise refuse(node, f"its input {index} ({name!r}) is missing", "export the model again")
        return self.cast(self.values[name], half=self.half_now)

    def typed(self, array: Array) -> Array:
        """Floats in the current node's precision, 64-bit integers in 32 bits.

        Raises:
            ModelError: a finite value that float16 does not hold.
        """
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                converted = array.astype(self.float_dtype)
            lost = np.isfinite(array) & ~np.isfinite(converted)
            if lost.any() and np.abs(array[lost]).max() < 1e30:
                node = self.node or Node("", "", (), ())
                raise refuse(
                    node, f"its constant {float(np.abs(array).max()):g} is beyond float16",
                    "lower it with --precision float32",
                )  # fmt: skip
            return np.asarray(np.clip(converted, -65504, 65504) if lost.any() else converted)
        if array.dtype in (np.int64, np.uint64, np.uint32):
            return np.clip(array, -(2**31), 2**31 - 1).astype(np.int32)
        return array

    def share(self, value: Any) -> Any:
        """A constant variable; equal ones are one, which keeps the program small."""
        array = np.asarray(value)
        key = (str(array.dtype), array.shape, sha256(array.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = self.builder.const(val=value, name=self.unique())
        return self._constants[key]

    def unique(self, name: str | None = None) -> str:
        """An identifier that no operation has yet: after a name, or any short one."""
        if name is None:
            name = next(short for short in self._short if short not in self._names | self._results)
            self._names.add(name)
            return name
        base = identifier(name)
        found, count = base, self._counts.get(base, 0)
        # An output's name is kept for what has the output's own precision.
        while found in self._names or (found in self._results and self.half_now):
            found, count = f"{base}_{count}", count + 1
        self._counts[base] = count
        self._names.add(found)
        return found

    def is_float(self, variable: Any) -> bool:
        """Whether a variable is float16 or float32."""
        return bool(self._types.is_float(variable.dtype))

    def cast(self, variable: Any, *, half: bool) -> Any:
        """The variable in that precision; integers and booleans stay as they are."""
        wanted = self._types.fp16 if half else self._types.fp32
        if not self.is_float(variable) or variable.dtype == wanted:
            return variable
        key = (variable.name, half)
        if key not in self._casts:
            name = self.unique()
            dtype = self.share(_HALF if half else "fp32")
            self._casts[key] = self.builder.cast(x=variable, dtype=dtype, name=name)
        return self._casts[key]

    def op(self, kind: str, *, name: str | None = None, **arguments: Any) -> Any:
        """Variables of a MIL operation; plain values among the arguments become shared constants.

        Raises:
            ModelError: MIL refuses it.
        """
        ready = {key: self._argument(value) for key, value in arguments.items() if value is not None}
        try:
            return getattr(self.builder, kind)(name=self.unique(name), **ready)
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            node = self.node or Node("", kind, (), ())
            raise refuse(
                node, f"Core ML's {kind} does not take it: {error}", "export the model without it"
            ) from error

    def _argument(self, value: Any) -> Any:
        first = value[0] if isinstance(value, (list, tuple)) and value else value
        return value if hasattr(first, "sym_type") else self.share(value)

    def write(self, node: Node, kind: str, **arguments: Any) -> Any:
        """The operation that makes the node's only output.

        A layer is named after its node and a result after itself; all else, which nobody looks for, has
        short names: in a small model long ones are a tenth of its size.
        """
        output = node.outputs[0]
        name = output if output in self.source.outputs else node.name if kind in _LAYERS else None
        self.values[output] = self.op(kind, name=name, **arguments)
        return self.values[output]

    def layer(self, node: Node) -> None:
        """Remember which operation the node's multiplications went to."""
        self.layers[self.values[node.outputs[0]].name] = node.name

    def result(self, name: str) -> Any:
        """An output of the model, float32 where it is float, under its own name as far as MIL takes it.

        Raises:
            ModelError: no node makes it.
        """
        if name not in self.values:
            raise ModelError(f"the output {name!r} is made by no node", fix="export the model again")
        variable, wanted = self.values[name], identifier(name)
        if variable.name == wanted and (not self.is_float(variable) or variable.dtype == self._types.fp32):
            return variable
        if self.is_float(variable):
            dtype = self.share("fp32")
            self._names.add(wanted)
            return self.builder.cast(x=variable, dtype=dtype, name=wanted)
        return self.builder.identity(x=variable, name=wanted)
