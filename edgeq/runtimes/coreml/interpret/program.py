"""The saved program as plain data, and its execution op by op.

Each op is computed in float32 and rounded to its declared type, so a float16 program shows what float16
storage costs. How a device adds up inside an op is its own affair: sums are float32 here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError
from edgeq.runtimes.coreml.interpret.heavy import HEAVY
from edgeq.runtimes.coreml.interpret.light import LIGHT, MOVES
from edgeq.runtimes.coreml.native import import_coremltools
from edgeq.runtimes.coreml.package import check_package

__all__ = [
    "Interpreter", "Operation", "Program", "Reference", "half_rounded", "load_program", "open_package",
    "read_program",
]  # fmt: skip

Array = npt.NDArray[Any]
_FIX = "lower the model anew with this edgeq"


@dataclass(frozen=True)
class Reference:
    """An argument that an operation or the caller gives."""

    name: str


@dataclass(frozen=True)
class Operation:
    """One operation; arguments are references, lists of them, or constants."""

    kind: str
    name: str
    arguments: Mapping[str, Any]
    outputs: tuple[str, ...]
    dtypes: tuple[str, ...]
    """MIL's names: fp16, fp32, int8, int32, ..."""


@dataclass(frozen=True)
class Program:
    """The main function."""

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Array]
    """Weights, real values."""
    metadata: Mapping[str, str]
    integer_weights: frozenset[str]
    """Names of constants that are stored as integers."""


class Interpreter:
    """Executes a program; keeps prepared operations between calls."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._prepared: dict[str, Any] = {}
        self._last_use = _last_uses(program)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name.

        Args:
            feeds: float32 by input name.

        Raises:
            ModelError: an operation that it has not.
        """
        values: dict[str, Array] = dict(feeds)
        for index, operation in enumerate(self.program.operations):
            values.update(self.evaluate(operation, values))
            for name in self._last_use.get(index, ()):
                values.pop(name, None)
        return {name: values[name] for name in self.program.outputs}

    def evaluate(self, operation: Operation, values: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one operation.

        Args:
            operation: of this program.
            values: what it refers to, by name.

        Raises:
            ModelError: the interpreter has no such operation.
        """
        arguments = {key: self._resolve(value, values) for key, value in operation.arguments.items()}
        if operation.kind in HEAVY:
            if operation.name not in self._prepared:
                self._prepared[operation.name] = HEAVY[operation.kind](arguments)
            results = self._prepared[operation.name](arguments)
        elif operation.kind in LIGHT:
            results = LIGHT[operation.kind](arguments)
        else:
            raise ModelError(
                f"the interpreter has no {operation.kind} ({operation.name!r})", fix="run it on a Mac"
            )
        found = results if isinstance(results, tuple) else (results,)
        moved = operation.kind in MOVES
        return {
            name: array if moved or dtype != "fp16" else half_rounded(array)
            for name, array, dtype in zip(operation.outputs, found, operation.dtypes)
        }

    def _resolve(self, value: Any, values: Mapping[str, Array]) -> Any:
        if isinstance(value, Reference):
            return values[value.name] if value.name in values else self.program.constants[value.name]
        if isinstance(value, tuple):
            return [self._resolve(entry, values) for entry in value]
        return value


def half_rounded(array: Array) -> Array:
    """float32 values rounded to what float16 holds."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float16).astype(np.float32)


def load_program(path: Path) -> Program:
    """The program of a package.

    Raises:
        ModelError: it is no package, or no mlprogram that coremltools reads.
        UnavailableError: coremltools is not installed.
    """
    return read_program(*open_package(path), path)


def open_package(path: Path) -> tuple[Any, str]:
    """A package's specification and the folder of its weights; raises as :func:`load_program`."""
    check_package(path)
    tools = import_coremltools()
    try:
        model = tools.models.MLModel(str(path), skip_model_load=True)
        return model.get_spec(), model.weights_dir or ""
    except Exception as error:  # protobuf's, coremltools' own and plain ones share no base class
        raise ModelError(f"{path} is no mlprogram that coremltools reads: {error}", fix=_FIX) from error


def read_program(spec: Any, weights: str, path: Path) -> Program:
    """The program of one specification, of a package or of a pipeline's stage.

    Args:
        spec: coremltools' message.
        weights: folder of the package's weights.
        path: the package, for messages.

    Raises:
        ModelError: it is no mlprogram that coremltools reads.
    """
    from coremltools.converters.mil.frontend.milproto.load import load

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            native = load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights)
            main = native.functions["main"]
    except Exception as error:  # as above
        raise ModelError(f"{path} is no mlprogram that coremltools reads: {error}", fix=_FIX) from error
    return _Reader(main, dict(spec.description.metadata.userDefined)).read()


class _Reader:
    def __init__(self, main: Any, metadata: Mapping[str, str]) -> None:
        self._main, self._metadata = main, metadata
        self._constants: dict[str, Array] = {}
        self._integers: set[str] = set()

    def read(self) -> Program:
        operations = tuple(self._operations())
        inputs = {name: _shape(variable) for name, variable in self._main.inputs.items()}
        outputs = {variable.name: _shape(variable) for variable in self._main.outputs}
        return Program(
            inputs, outputs, operations, self._constants, self._metadata, frozenset(self._integers)
        )

    def _operations(self) -> Iterator[Operation]:
        for native in self._main.operations:
            if native.op_type == "const":
                continue
            if native.op_type == "constexpr_affine_dequantize":
                self._weight(native)
                continue
            arguments = {
                key: self._argument(value) for key, value in native.inputs.items() if value is not None
            }
            yield Operation(
                native.op_type,
                native.name,
                arguments,
                tuple(variable.name for variable in native.outputs),
                tuple(_dtype(variable) for variable in native.outputs),
            )

    def _argument(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(self._argument(entry) for entry in value)
        if value.name in self._constants:
            return Reference(value.name)
        if value.op is not None and value.op.op_type == "const":
            found = value.val
            if isinstance(found, np.ndarray) and found.size > 16:
                self._constants[value.name] = _plain(found)
                return Reference(value.name)
            return _plain(found)
        return Reference(value.name)

    def _weight(self, native: Any) -> None:
        integers = np.asarray(native.quantized_data.val)
        scale = np.asarray(native.scale.val, np.float32)
        zero = np.asarray(native.zero_point.val, np.float32)
        axis = int(native.axis.val) if scale.ndim else 0
        shape = [-1 if index == axis else 1 for index in range(integers.ndim)] if scale.ndim else ()
        real = (integers.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
        output = native.outputs[0]
        self._constants[output.name] = half_rounded(real) if _dtype(output) == "fp16" else real
        self._integers.add(output.name)


def _plain(value: Any) -> Any:
    """float16 as float32, which holds the same values; all else as it is."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype == np.float16:
        return np.asarray(value, np.float32)
    return value


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in variable.shape)


def _dtype(variable: Any) -> str:
    from coremltools.converters.mil.mil import types

    return str(types.builtin_to_string(variable.dtype))


def _last_uses(program: Program) -> dict[int, list[str]]:
    """Operation index -> values that nothing reads after it."""
    last: dict[str, int] = {}
    for index, operation in enumerate(program.operations):
        for value in operation.arguments.values():
            for entry in value if isinstance(value, tuple) else (value,):
                if isinstance(entry, Reference):
                    last[entry.name] = index
    found: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in program.outputs:
            found.setdefault(index, []).append(name)
    return found
