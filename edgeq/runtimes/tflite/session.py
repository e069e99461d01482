"""A session of TFLite on the CPU. Device side: numpy and one of the two wheels only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.tflite.hazards import undefined_operators, undefined_warning
from edgeq.runtimes.tflite.modelfile import FileTensor, TfliteFile, read_model, tail_path
from edgeq.runtimes.tflite.native import Wheel, delegated, import_wheel, native_message, quiet_native_log
from edgeq.types import TensorInfo

__all__ = ["TfliteSession", "open_interpreter", "open_session"]

_INTEGERS = frozenset({"int8", "uint8", "int16", "uint16"})
_PLAIN = frozenset({"int32", "int64", "uint32", "bool", "float16", "float64"})


class TfliteSession:
    """A loaded model; see `edgeq.runtimes.base.Session`.

    Callers see float32 everywhere; inputs and outputs of other types are converted here, at the model's own
    scales where it has them. An integers-only model is followed by its float tail.
    """

    def __init__(
        self, parts: Sequence[_Part], metadata: Mapping[str, str], details: Mapping[str, str]
    ) -> None:
        self._parts, self._metadata, self._details = tuple(parts), dict(metadata), dict(details)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The model's inputs, named by its signature where it has one."""
        return tuple(port.info for port in self._parts[0].inputs)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The model's outputs, named by its signature where it has one."""
        return tuple(port.info for port in self._parts[-1].outputs)

    @property
    def details(self) -> Mapping[str, str]:
        """Version, wheel, delegate and what it took, threads and the types of inputs and outputs."""
        return self._details

    @property
    def metadata(self) -> Mapping[str, str]:
        """The key-value pairs in the model file: edgeq's or the exporter's."""
        return self._metadata

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Outputs, float32, by name for one input tensor.

        Raises:
            ModelError: the tensor does not fit the model, or an operator fails.
        """
        if len(self.inputs) != 1:
            names = ", ".join(info.name for info in self.inputs)
            raise ModelError(
                f"inference failed: it takes {len(self.inputs)} inputs ({names}), edgeq gives one image",
                fix="convert the model with the image as its only input",
            )
        info = self.inputs[0]
        if tuple(tensor.shape) != info.shape:
            raise ModelError(
                f"inference failed: input {info.name!r} takes {list(info.shape)}, not {list(tensor.shape)}"
            )
        values = {info.name: tensor}
        try:
            for part in self._parts:
                values = part.run(values)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"inference failed: {native_message(error)}") from error
        return values


@dataclass(frozen=True)
class _Part:
    """One file's interpreter."""

    native: Any
    inputs: tuple[_Port, ...]
    outputs: tuple[_Port, ...]

    @classmethod
    def of(cls, native: Any, file: TfliteFile) -> _Part:
        inputs, outputs = ([_Port.of(file, n) for n in numbers] for numbers in (file.inputs, file.outputs))
        return cls(native, tuple(inputs), tuple(outputs))

    def run(self, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Float32 outputs by name for float32 inputs by name."""
        for port in self.inputs:
            self.native.set_tensor(port.index, port.to_native(values[port.info.name]))
        self.native.invoke()
        return {port.info.name: port.from_native(self.native.get_tensor(port.index)) for port in self.outputs}


@dataclass(frozen=True)
class _Port:
    """An input or output: its tensor, and how float32 becomes its type and back."""

    index: int
    info: TensorInfo
    dtype: str
    scale: float
    """0: the numbers mean themselves."""
    zero_point: int

    @classmethod
    def of(cls, model: TfliteFile, number: int) -> _Port:
        tensor: FileTensor = model.tensors[number]
        scale = tensor.scales[0] if len(tensor.scales) == 1 and tensor.dtype in _INTEGERS else 0.0
        info = TensorInfo(model.name(number), tensor.shape, "float32")
        return cls(number, info, tensor.dtype, scale, tensor.zero_points[0] if scale else 0)

    def to_native(self, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.dtype == "float32":
            return np.asarray(tensor, np.float32)
        if self.dtype not in _INTEGERS:
            return np.asarray(tensor).astype(self.dtype)
        values = np.asarray(tensor, np.float32)
        if self.scale:
            values = values / np.float32(self.scale)
        limits = np.iinfo(self.dtype)
        integers: npt.NDArray[Any] = np.clip(np.rint(values) + self.zero_point, limits.min, limits.max)
        return integers.astype(self.dtype)

    def from_native(self, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = tensor.astype(np.float32, copy=False)
        return (values - np.float32(self.zero_point)) * np.float32(self.scale) if self.scale else values


def open_session(artifact: Path, options: SessionOptions) -> TfliteSession:
    """The model, with XNNPACK unless ``options.xnnpack`` is False.

    ``options.default_float`` changes nothing: float32 is the default on a CPU.

    Raises:
        ModelError: the file is missing or damaged, has inputs of unknown size, or TFLite cannot load it.
        UnavailableError: neither wheel is installed.
    """
    wheel = import_wheel()
    file = read_model(artifact)
    _check_ports(file, artifact)
    parts = [_Part.of(open_interpreter(wheel, artifact, options), file)]
    details = {
        "runtime": "tflite",
        "version": wheel.version,
        "package": wheel.package,
        **_delegate(parts[0].native, file),
        "threads": str(options.threads),
        "float_precision": "float32",
        "input_dtype": ", ".join(port.dtype for port in parts[0].inputs),
        "output_dtype": ", ".join(port.dtype for port in parts[0].outputs),
    }
    behind = tail_path(artifact, file)
    if behind is not None:
        parts.append(_open_tail(wheel, behind, options, parts[0]))
        details["tail"] = f"{behind.name}, float, reference kernels"
    return TfliteSession(parts, file.metadata, details)


def _open_tail(wheel: Wheel, path: Path, options: SessionOptions, body: _Part) -> _Part:
    """The float file behind an integers-only one, in TFLite's reference kernels.

    XNNPACK has another sigmoid and softmax for every kind of CPU; the reference kernels call the C library's
    exponential and round after every step, so integers that are equal become outputs that are equal.

    Raises:
        ModelError: it does not take what the other gives.
    """
    file = read_model(path)
    _check_ports(file, path)
    part = _Part.of(open_interpreter(wheel, path, options, reference=True), file)
    given = {port.info.name: port.info.shape for port in body.outputs}
    if {port.info.name: port.info.shape for port in part.inputs} != given:
        raise ModelError(f"{path} does not take the outputs of the model before it", fix="lower both anew")
    return part


def open_interpreter(
    wheel: Wheel, artifact: Path, options: SessionOptions, *, reference: bool = False
) -> Any:
    """TFLite's own interpreter, tensors allocated.

    Args:
        wheel: TFLite.
        artifact: the file.
        options: threads, and whether XNNPACK takes part.
        reference: TFLite's reference kernels, whatever ``options`` say: slow, and the same everywhere.

    Raises:
        ModelError: TFLite cannot load the file.
    """
    kinds = wheel.module.OpResolverType
    kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if options.xnnpack is False else kinds.AUTO
    if reference:
        kind = kinds.BUILTIN_REF
    try:
        with quiet_native_log():
            native = wheel.module.Interpreter(
                model_path=str(artifact), num_threads=options.threads, experimental_op_resolver_type=kind
            )
            native.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"TFLite ({wheel.package} {wheel.version}) cannot load {artifact}: {native_message(error)}",
            fix="check that the file is whole, that it needs TFLite's own operators only, "
            "and that this TFLite is not older than what wrote it",
        ) from error
    return native


def _check_ports(model: TfliteFile, artifact: Path) -> None:
    """Raise ModelError for inputs and outputs that cannot be fed or read as numbers of known shape."""
    for number in (*model.inputs, *model.outputs):
        tensor = model.tensors[number]
        if tensor.dtype not in _INTEGERS | _PLAIN | {"float32"}:
            raise ModelError(f"{artifact}: {model.name(number)!r} is of type {tensor.dtype}, not numbers")
    for number in model.inputs:
        if model.tensors[number].dynamic:
            shape = ["?" if size < 0 else size for size in model.tensors[number].signature]
            raise ModelError(
                f"{artifact}: input {model.name(number)!r} has no fixed size: {shape}",
                fix="convert the model with a fixed input size",
            )


def _delegate(native: Any, file: TfliteFile) -> dict[str, str]:
    """Which delegate took operators, how many of how many in how many pieces, and what that means."""
    try:
        operators = native._get_ops_details()
    except (AttributeError, RuntimeError, ValueError, KeyError):  # not part of TFLite's public interface
        return {"delegate": "unknown"}
    taken, pieces = delegated(operators)
    count = len(operators) - pieces
    text = undefined_warning(len(undefined_operators(file, taken)))
    warning = {"warning": text} if text else {}
    if not pieces:
        return {"delegate": "none", "delegated_ops": f"0 of {count}", **warning}
    parts = f"{pieces} part{'s' if pieces > 1 else ''}"
    return {"delegate": "XNNPACK", "delegated_ops": f"{len(taken)} of {count} in {parts}", **warning}
