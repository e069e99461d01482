"""A session of ONNX Runtime's CPU provider. Device side: numpy and onnxruntime only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeq.errors import ModelError
from edgeq.runtimes.base import LayerTime, SessionOptions
from edgeq.runtimes.onnxruntime.native import PROVIDER, import_onnxruntime, one_line, session_options
from edgeq.runtimes.onnxruntime.profile import layer_times
from edgeq.types import TensorInfo

__all__ = ["OnnxRuntimeSession", "open_session"]

_DTYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names where they are not numpy's."""


class OnnxRuntimeSession:
    """A loaded model; see `edgeq.runtimes.base.Session`."""

    def __init__(
        self, native: Any, details: Mapping[str, str], *, artifact: Path, options: SessionOptions
    ) -> None:
        self._native, self._artifact, self._options = native, artifact, options
        self._inputs = tuple(_info(entry) for entry in native.get_inputs())
        self._outputs = tuple(_info(entry) for entry in native.get_outputs())
        self._names = [info.name for info in self._outputs]
        self._details = dict(details)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The model's inputs."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The model's outputs."""
        return self._outputs

    @property
    def details(self) -> Mapping[str, str]:
        """Version, provider, threads and precision."""
        return self._details

    @property
    def metadata(self) -> Mapping[str, str]:
        """The key-value pairs in the model file."""
        return dict(self._native.get_modelmeta().custom_metadata_map)

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for one input tensor.

        Raises:
            ModelError: the tensor does not fit the model, or an operator fails.
        """
        try:
            values = self._native.run(self._names, {self._inputs[0].name: tensor})
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelError(f"inference failed: {one_line(error)}") from error
        return dict(zip(self._names, values))  # noqa: B905 (boards may have Python 3.9)

    def profile(self, tensor: npt.NDArray[Any], *, runs: int) -> tuple[LayerTime, ...]:
        """Each executed kernel with its median time; the model is loaded once more, with the profiler on.

        Raises:
            ModelError: as :meth:`infer`.
        """
        return layer_times(self._artifact, self._options, tensor, runs=runs)


def open_session(artifact: Path, options: SessionOptions) -> OnnxRuntimeSession:
    """The model with all of ONNX Runtime's optimisations.

    ``options.default_float`` changes nothing: float32 is ONNX Runtime's default on a CPU.

    Raises:
        ModelError: the file is missing or ONNX Runtime cannot load it.
        UnavailableError: onnxruntime is not installed.
    """
    ort = import_onnxruntime()
    if not artifact.is_file():
        raise ModelError(f"there is no model file {artifact}", fix="check the path")
    try:
        native = ort.InferenceSession(str(artifact), session_options(options), providers=[PROVIDER])
    except Exception as error:  # as in infer
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load {artifact}: {one_line(error)}",
            fix="check that the file is whole, and that this ONNX Runtime is new enough for its opset",
        ) from error
    if not native.get_inputs():
        raise ModelError(f"{artifact} has no input, so there is nothing to infer from")
    details = {
        "runtime": "onnxruntime",
        "version": str(ort.__version__),
        "provider": ", ".join(native.get_providers()),
        "threads": str(options.threads),
        "float_precision": "float32",
        "graph_optimization": "all but WeightBiasQuantization",
    }
    return OnnxRuntimeSession(native, details, artifact=artifact, options=options)


def _info(entry: Any) -> TensorInfo:
    """Name, shape and numpy dtype of a ``NodeArg``."""
    inner = str(entry.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, (int, str)) else None for size in entry.shape)
    return TensorInfo(entry.name, shape, _DTYPES.get(inner, inner))
