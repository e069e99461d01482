"""The few calls of the CUDA runtime that a session needs, through ctypes. Device side.

Source: CUDA Runtime API reference. The library comes with JetPack, with a CUDA toolkit, or with the
``nvidia-cuda-runtime`` wheel that TensorRT's own wheel depends on.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeq.errors import ModelError, UnavailableError

__all__ = ["Cuda", "load_cuda"]

_TO_DEVICE, _TO_HOST = 1, 2
_MAJOR, _MINOR = 75, 76
"""cudaDevAttrComputeCapabilityMajor, -Minor"""
_PROPERTIES_BYTES = 1 << 14
"""More than any version's cudaDeviceProp; its first 256 bytes are the name."""
_NAME_BYTES = 256
_SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")


class Cuda:
    """The CUDA runtime; every call that fails raises."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def allocate(self, size_bytes: int) -> int:
        """Address of new device memory."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(size_bytes, 1)))
        return int(pointer.value or 0)

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def new_stream(self) -> int:
        """Handle of a stream."""
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        return int(stream.value or 0)

    def to_device(self, address: int, array: npt.NDArray[Any], stream: int) -> None:
        """Start copying a contiguous array to device memory."""
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE, stream)

    def to_host(self, array: npt.NDArray[Any], address: int, stream: int) -> None:
        """Start copying device memory into a contiguous array."""
        self._copy(array.ctypes.data, address, array.nbytes, _TO_HOST, stream)

    def wait(self, stream: int) -> None:
        """Return when a stream has done everything."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def new_event(self) -> int:
        """Handle of an event that takes the time."""
        event = ctypes.c_void_p()
        self._call("cudaEventCreate", ctypes.byref(event))
        return int(event.value or 0)

    def record(self, event: int, stream: int) -> None:
        """Take the time when the stream gets there."""
        self._call("cudaEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def elapsed_ms(self, start: int, end: int) -> float:
        """Between two events that have happened; resolution about 0.5 us."""
        took = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(took), ctypes.c_void_p(start), ctypes.c_void_p(end))
        return float(took.value)

    def device_name(self) -> str:
        """Of the first GPU: ``Orin``."""
        buffer = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", buffer, ctypes.c_int(0))
        return buffer.raw[:_NAME_BYTES].split(b"\0", 1)[0].decode(errors="replace").strip()

    def compute_capability(self) -> str:
        """Of the first GPU: ``8.7``."""
        return f"{self._attribute(_MAJOR)}.{self._attribute(_MINOR)}"

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", ctypes.c_void_p(event))

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), ctypes.c_int(0))
        return int(value.value)

    def _copy(self, to: int, source: int, size_bytes: int, kind: int, stream: int) -> None:
        self._call(
            "cudaMemcpyAsync", ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size_bytes),
            ctypes.c_int(kind), ctypes.c_void_p(stream),
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        status = int(getattr(self._library, name)(*arguments))
        if status == 0:
            return
        describe = self._library.cudaGetErrorString
        describe.restype = ctypes.c_char_p
        text = describe(ctypes.c_int(status)) or b""
        raise ModelError(
            f"{name} failed: {bytes(text).decode(errors='replace') or status}",
            fix="another program may hold the GPU's memory; see nvidia-smi or tegrastats",
        )


def load_cuda() -> Cuda:
    """The CUDA runtime of this machine.

    Raises:
        UnavailableError: there is none, or no GPU.
    """
    tried = []
    for name in _candidates():
        try:
            cuda = Cuda(ctypes.CDLL(name))
            cuda.compute_capability()
        except OSError as error:
            tried.append(str(error))
        except ModelError as error:
            raise UnavailableError(
                f"there is no usable NVIDIA GPU here: {error.message}", fix="check the driver: nvidia-smi"
            ) from error
        else:
            return cuda
    raise UnavailableError(
        f"the CUDA runtime cannot be loaded: {tried[0] if tried else 'no libcudart'}",
        fix="it is part of JetPack and of the CUDA toolkit; elsewhere: pip install tensorrt",
    )


def _candidates() -> Iterator[str]:
    found = ctypes.util.find_library("cudart")
    if found:
        yield found
    yield from _SONAMES
    yield "/usr/local/cuda/lib64/libcudart.so"
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from (str(path) for path in sorted(Path(folder).glob("*/lib/libcudart.so.*")))
