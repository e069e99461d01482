"""A session of ONNX Runtime's CPU provider. Device side: numpy and onnxruntime only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import LayerTime, SessionOptions
from edgeq.types import TensorInfo

__all__ = [
    "PROVIDER",
    "OnnxRuntimeSession",
    "import_onnxruntime",
    "one_line",
    "open_session",
    "session_options",
]

PROVIDER = "CPUExecutionProvider"
KEEP_FLOAT = ("optimization.disable_specified_optimizers", "WeightBiasQuantization")
"""Session entry. That pass makes a float Conv + Relu between INT8 tensors integer, with one weight scale for
all channels, which is what the plan kept it in float to avoid."""
_FATAL_ONLY = 4
_DTYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names where they are not numpy's."""
_DETAIL_CHARS = 300
_PREFIX = re.compile(r"^.*\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")


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
        from edgeq.runtimes.onnxruntime.profile import layer_times

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


def session_options(options: SessionOptions) -> Any:
    """ONNX Runtime's options for edgeq's."""
    ort = import_onnxruntime()
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = options.threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.add_session_config_entry(*KEEP_FLOAT)
    # Its own lines on stderr would be said again by the exception.
    chosen.log_severity_level = _FATAL_ONLY
    return chosen


def import_onnxruntime() -> Any:
    """The module.

    Raises:
        UnavailableError: it is not installed, or its native library does not load here.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            f"ONNX Runtime cannot be loaded: {error}", fix="pip install onnxruntime"
        ) from error
    return onnxruntime


def one_line(error: Exception) -> str:
    """The first line of what ONNX Runtime says, without its prefix and at a readable length."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = _PREFIX.sub("", text)
    return text if len(text) <= _DETAIL_CHARS else text[:_DETAIL_CHARS] + "..."


def _info(entry: Any) -> TensorInfo:
    """Name, shape and numpy dtype of a ``NodeArg``."""
    inner = str(entry.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, (int, str)) else None for size in entry.shape)
    return TensorInfo(entry.name, shape, _DTYPES.get(inner, inner))
