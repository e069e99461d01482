"""A session of OpenVINO's CPU plugin. Device side: numpy and openvino only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import LayerTime, SessionOptions
from edgeq.runtimes.openvino.executed import layer_times
from edgeq.types import TensorInfo

__all__ = [
    "DEVICE",
    "METADATA_KEY",
    "OpenVinoSession",
    "compile_options",
    "import_openvino",
    "one_line",
    "open_session",
    "read_model",
]

DEVICE = "CPU"
_COUNTERS = "PERF_COUNT"
METADATA_KEY = "source_metadata"
"""Section of the model's runtime info that holds the source's key-value pairs."""
_MAX_XML_BYTES = 64 << 20
_MAX_BIN_BYTES = 4 << 30
_START_BYTES = 512
_DETAIL_CHARS = 300
_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "u8": "uint8", "i8": "int8"}
_PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class OpenVinoSession:
    """A compiled model; see `edgeq.runtimes.base.Session`."""

    def __init__(
        self, model: Any, compiled: Any, config: Mapping[str, Any], details: Mapping[str, str]
    ) -> None:
        self._model, self._compiled, self._config = model, compiled, dict(config)
        self._request = compiled.create_infer_request()
        self._inputs = tuple(_info(port) for port in compiled.inputs)
        self._outputs = tuple(_info(port) for port in compiled.outputs)
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
        """Version, device, threads, precision, streams and pinning."""
        return self._details

    @property
    def metadata(self) -> Mapping[str, str]:
        """The source's key-value pairs, which lowering wrote into the model."""
        if not self._model.has_rt_info(METADATA_KEY):
            return {}
        pairs = self._model.get_rt_info(METADATA_KEY)
        pairs = pairs.value if hasattr(pairs, "value") else pairs
        return {str(key): str(getattr(value, "value", value)) for key, value in dict(pairs).items()}

    @property
    def model(self) -> Any:
        """The model before compilation, as an ``openvino.Model``."""
        return self._model

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for one input tensor.

        Raises:
            ModelError: the tensor does not fit the model, or an operator fails.
        """
        try:
            self._request.infer([tensor], share_inputs=True)
            values = [np.array(entry.data) for entry in self._request.output_tensors]
        except RuntimeError as error:
            raise ModelError(f"inference failed: {one_line(error)}") from error
        pairs = zip(self._outputs, values)  # noqa: B905 (boards may have Python 3.9)
        return {info.name: value for info, value in pairs}

    @property
    def in_flight(self) -> int:
        """OpenVINO's own advice for the streams that it made."""
        return max(1, int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))

    def infer_all(self, tensors: Iterable[npt.NDArray[Any]]) -> None:
        """Infer from all tensors, :attr:`in_flight` at once; the outputs are dropped.

        Raises:
            ModelError: as :meth:`infer`.
        """
        ov = import_openvino()
        try:
            queue = ov.AsyncInferQueue(self._compiled, self.in_flight)
            for tensor in tensors:
                queue.start_async([tensor], share_inputs=True)
            queue.wait_all()
        except RuntimeError as error:
            raise ModelError(f"inference failed: {one_line(error)}") from error

    def profile(self, tensor: npt.NDArray[Any], *, runs: int) -> tuple[LayerTime, ...]:
        """Each executed layer with its median time; compiled once more where that was without counters.

        Raises:
            ModelError: as :meth:`infer`.
        """
        ov = import_openvino()
        try:
            compiled = self._compiled
            if _COUNTERS not in self._config:
                compiled = ov.Core().compile_model(self._model, DEVICE, {**self._config, _COUNTERS: True})
            return layer_times(compiled, tensor, runs=runs)
        except RuntimeError as error:
            raise ModelError(f"inference failed: {one_line(error)}") from error


def open_session(artifact: Path, options: SessionOptions, *, counters: bool = False) -> OpenVinoSession:
    """The model, compiled for low latency unless the options ask for throughput.

    Float layers run in float32, or with ``options.default_float`` in what OpenVINO takes on this CPU
    (bfloat16 or float16 where there are instructions for it); ``details`` records which.

    Args:
        artifact: the ``.xml``.
        options: how to run it.
        counters: time every layer, for a session that is there to be profiled.

    Raises:
        ModelError: a file is missing or damaged, or OpenVINO cannot compile the model.
        UnavailableError: openvino is not installed.
    """
    ov = import_openvino()
    model = read_model(artifact)
    config = {**compile_options(options), **({_COUNTERS: True} if counters else {})}
    try:
        compiled = ov.Core().compile_model(model, DEVICE, config)
        details = _details(ov, compiled)
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO {ov.__version__} cannot compile {artifact}: {one_line(error)}",
            fix="check that this OpenVINO is not older than the one that wrote the model",
        ) from error
    return OpenVinoSession(model, compiled, config, details)


def compile_options(options: SessionOptions) -> dict[str, Any]:
    """OpenVINO's properties for edgeq's options.

    For latency one stream, so that one inference has all the threads; for throughput as many as OpenVINO
    takes for that many threads. No pinning: two sessions that take turns would be pinned to the same cores,
    and other processes' threads with them.
    """
    chosen: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT" if options.performance_hint == "throughput" else "LATENCY",
        "INFERENCE_NUM_THREADS": options.threads,
        "ENABLE_CPU_PINNING": False,
    }
    if options.performance_hint != "throughput":
        chosen["NUM_STREAMS"] = 1
    if not options.default_float:
        chosen["INFERENCE_PRECISION_HINT"] = "f32"
    return chosen


def read_model(artifact: Path) -> Any:
    """The model of an ``.xml`` with its ``.bin`` beside it, as an ``openvino.Model``.

    Raises:
        ModelError: a file is missing, no plain file, over its limit, or not what OpenVINO writes.
        UnavailableError: openvino is not installed.
    """
    ov = import_openvino()
    weights = artifact.with_suffix(".bin")
    for path, limit_bytes in ((artifact, _MAX_XML_BYTES), (weights, _MAX_BIN_BYTES)):
        _check_file(path, limit_bytes)
    with artifact.open("rb") as file:
        start = file.read(_START_BYTES)
    if b"<net " not in start:
        raise ModelError(f"{artifact} is not an OpenVINO model: it does not begin with <net>")
    if b"<!DOCTYPE" in start:
        raise ModelError(f"{artifact} declares a document type, which OpenVINO never writes")
    try:
        model = ov.Core().read_model(str(artifact), str(weights))
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO {ov.__version__} cannot read {artifact}: {one_line(error)}",
            fix="check that .xml and .bin belong together and are whole",
        ) from error
    if not model.inputs:
        raise ModelError(f"{artifact} has no input, so there is nothing to infer from")
    return model


def import_openvino() -> Any:
    """The module.

    Raises:
        UnavailableError: it is not installed, or its native library does not load here.
    """
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise UnavailableError(
            f"OpenVINO cannot be loaded: {error}", fix='pip install "edgeq[openvino]"'
        ) from error
    return openvino


def one_line(error: Exception) -> str:
    """The line of what OpenVINO says that tells most, at a readable length: the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))] or lines
    text = told[-1] if told else type(error).__name__
    return text if len(text) <= _DETAIL_CHARS else text[:_DETAIL_CHARS] + "..."


def _check_file(path: Path, limit_bytes: int) -> None:
    if not path.is_file():
        raise ModelError(f"there is no model file {path}", fix="an OpenVINO model is an .xml and a .bin")
    size_bytes = path.stat().st_size
    if size_bytes > limit_bytes:
        raise ModelError(f"{path} has {size_bytes >> 20} MB, over the limit of {limit_bytes >> 20} MB")


def _details(ov: Any, compiled: Any) -> dict[str, str]:
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return {
        "runtime": "openvino",
        "version": str(ov.__version__),
        "device": DEVICE,
        "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
        "streams": str(compiled.get_property("NUM_STREAMS")),
        "float_precision": _PRECISIONS.get(precision, precision),
        "performance_hint": str(compiled.get_property("PERFORMANCE_HINT")).rpartition(".")[2].lower(),
        "core_pinning": "yes" if compiled.get_property("ENABLE_CPU_PINNING") else "no",
    }


def _info(port: Any) -> TensorInfo:
    """Name, shape and numpy dtype of an input or output."""
    name = min(port.get_names(), default=port.get_node().get_friendly_name())
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.get_partial_shape())
    dtype = port.get_element_type().get_type_name()
    return TensorInfo(name, shape, _DTYPES.get(dtype, dtype))
