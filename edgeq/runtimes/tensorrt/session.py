"""A session of TensorRT on the GPU or DLA. Device side: numpy and TensorRT only.

Written against the documented API of TensorRT 10 and 11 and tested with a stand-in; it has not run on a
GPU yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import Session, SessionOptions
from edgeq.runtimes.tensorrt.cache import Device
from edgeq.runtimes.tensorrt.cuda import Cuda, load_cuda
from edgeq.runtimes.tensorrt.details import Details
from edgeq.runtimes.tensorrt.engine import import_tensorrt, load_engine
from edgeq.runtimes.tensorrt.trtexec import find_trtexec
from edgeq.runtimes.tensorrt.trtexec_session import TrtexecSession
from edgeq.types import TensorInfo

__all__ = ["TensorRTSession", "open_session"]


@dataclass(frozen=True)
class _Buffer:
    """One input or output: where it lies on the device, and on the host."""

    info: TensorInfo
    address: int
    host: npt.NDArray[Any]


class TensorRTSession:
    """A loaded engine; see `edgeq.runtimes.base.Session`."""

    def __init__(self, trt: Any, engine: Any, cuda: Cuda, details: Details) -> None:
        self._engine, self._cuda = engine, cuda
        self._context = engine.create_execution_context()
        if self._context is None:
            raise ModelError(
                "TensorRT has no memory for the engine's activations", fix="close other programs"
            )
        self._details = details
        self._stream = cuda.new_stream()
        self._start, self._end = cuda.new_event(), cuda.new_event()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._buffers = {name: self._buffer(trt, name) for name in names}
        if len(inputs) != 1:
            raise ModelError(f"the model has {len(inputs)} inputs; edgeq feeds one")
        self._input = inputs[0]
        self._output_names = [name for name in names if name not in inputs]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The engine's input."""
        return (self._buffers[self._input].info,)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The engine's outputs."""
        return tuple(self._buffers[name].info for name in self._output_names)

    @property
    def gpu_times_ms(self) -> tuple[float, ...]:
        """Of the last inferences, by CUDA events: the engine alone, without the copies."""
        return self._details.gpu_times_ms

    @property
    def details(self) -> Mapping[str, str]:
        """Version, device and precision; after inferences also the GPU's own time."""
        return self._details.with_times()

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for one input tensor: copied in, run, copied out.

        Raises:
            ModelError: the tensor does not fit the model, or the GPU fails.
        """
        given = self._buffers[self._input]
        if tensor.shape != given.host.shape:
            raise ModelError(
                f"inference failed: the input is {list(tensor.shape)}, not {list(given.host.shape)}"
            )
        np.copyto(given.host, tensor)
        self._cuda.to_device(given.address, given.host, self._stream)
        self._cuda.record(self._start, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise ModelError("inference failed: TensorRT could not start the engine")
        self._cuda.record(self._end, self._stream)
        for name in self._output_names:
            self._cuda.to_host(self._buffers[name].host, self._buffers[name].address, self._stream)
        self._cuda.wait(self._stream)
        self._details.add_times([self._cuda.elapsed_ms(self._start, self._end)])
        return {name: self._buffers[name].host.copy() for name in self._output_names}

    def close(self) -> None:
        """Give memory, stream and events back; twice does no harm."""
        if not self._buffers:
            return
        for buffer in self._buffers.values():
            self._cuda.free(buffer.address)
        self._buffers = {}
        self._cuda.destroy_event(self._start)
        self._cuda.destroy_event(self._end)
        self._cuda.destroy_stream(self._stream)

    def __del__(self) -> None:
        # The interpreter may be half gone, and a session that failed to open has no buffers.
        if getattr(self, "_buffers", None):
            self.close()

    def _buffer(self, trt: Any, name: str) -> _Buffer:
        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise ModelError(
                f"{name} has the dynamic shape {list(shape)}", fix="export the model with fixed shapes"
            )
        dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
        host: npt.NDArray[Any] = np.zeros(shape, dtype)
        address = self._cuda.allocate(host.nbytes)
        self._context.set_tensor_address(name, address)
        return _Buffer(TensorInfo(name, shape, dtype.name), address, host)


def open_session(artifact: Path, options: SessionOptions) -> Session:
    """An engine of the model, built here or from the cache; through ``trtexec`` where the module is missing.

    The first opening of a model on a device builds, which takes minutes.

    Raises:
        ModelError: the model is missing, or TensorRT refuses it.
        UnavailableError: neither TensorRT's module nor ``trtexec`` is here, or there is no GPU.
    """
    try:
        trt = import_tensorrt()
    except UnavailableError:
        program = find_trtexec()
        if program is None:
            raise
        return TrtexecSession(program, artifact, options)
    cuda = load_cuda()
    device = Device(cuda.device_name(), cuda.compute_capability())
    engine, cached = load_engine(trt, artifact, options, device)
    details = Details(str(trt.__version__), device, options, cached=cached)
    return TensorRTSession(trt, engine, cuda, details)
