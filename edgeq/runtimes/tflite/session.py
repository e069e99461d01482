"""A session of TFLite on the CPU. Device side: numpy and one of the two wheels only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.tflite.modelfile import FileTensor, TfliteFile, read_model
from edgeq.runtimes.tflite.native import Wheel, delegated, import_wheel, native_message, quiet_native_log
from edgeq.types import TensorInfo

__all__ = ["TfliteSession", "open_interpreter", "open_session"]

_INTEGERS = frozenset({"int8", "uint8", "int16", "uint16"})
_PLAIN = frozenset({"int32", "int64", "uint32", "bool", "float16", "float64"})


class TfliteSession:
    """A loaded model; see `edgeq.runtimes.base.Session`.

    Callers see float32 everywhere; inputs and outputs of other types are converted here, at the model's own
    scales where it has them.
    """

    def __init__(self, native: Any, model: TfliteFile, details: Mapping[str, str]) -> None:
        self._native, self._details = native, dict(details)
        self._inputs = tuple(_Port.of(model, number) for number in model.inputs)
        self._outputs = tuple(_Port.of(model, number) for number in model.outputs)
        self._metadata = dict(model.metadata)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The model's inputs, named by its signature where it has one."""
        return tuple(port.info for port in self._inputs)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The model's outputs, named by its signature where it has one."""
        return tuple(port.info for port in self._outputs)

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
        if len(self._inputs) != 1:
            names = ", ".join(port.info.name for port in self._inputs)
            raise ModelError(
                f"inference failed: it takes {len(self._inputs)} inputs ({names}), edgeq gives one image",
                fix="convert the model with the image as its only input",
            )
        port = self._inputs[0]
        if tuple(tensor.shape) != port.info.shape:
            raise ModelError(
                f"inference failed: input {port.info.name!r} takes {list(port.info.shape)}, "
                f"not {list(tensor.shape)}"
            )
        try:
            self._native.set_tensor(port.index, port.to_native(tensor))
            self._native.invoke()
            return {
                out.info.name: out.from_native(self._native.get_tensor(out.index)) for out in self._outputs
            }
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"inference failed: {native_message(error)}") from error


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
    model = read_model(artifact)
    _check_ports(model, artifact)
    native = open_interpreter(wheel, artifact, options)
    details = {
        "runtime": "tflite",
        "version": wheel.version,
        "package": wheel.package,
        **_delegate(native),
        "threads": str(options.threads),
        "float_precision": "float32",
        "input_dtype": ", ".join(model.tensors[number].dtype for number in model.inputs),
        "output_dtype": ", ".join(model.tensors[number].dtype for number in model.outputs),
    }
    return TfliteSession(native, model, details)


def open_interpreter(wheel: Wheel, artifact: Path, options: SessionOptions) -> Any:
    """TFLite's own interpreter, tensors allocated.

    Raises:
        ModelError: TFLite cannot load the file.
    """
    kinds = wheel.module.OpResolverType
    kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if options.xnnpack is False else kinds.AUTO
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


def _delegate(native: Any) -> dict[str, str]:
    """Which delegate took operators, and how many of how many in how many pieces."""
    try:
        operators = native._get_ops_details()
    except (AttributeError, RuntimeError, ValueError, KeyError):  # not part of TFLite's public interface
        return {"delegate": "unknown"}
    taken, pieces = delegated(operators)
    count = len(operators) - pieces
    if not pieces:
        return {"delegate": "none", "delegated_ops": f"0 of {count}"}
    parts = f"{pieces} part{'s' if pieces > 1 else ''}"
    return {"delegate": "XNNPACK", "delegated_ops": f"{len(taken)} of {count} in {parts}"}
