"""The ctypes calls, taken by a library that notes them."""

import ctypes

import numpy as np
import pytest

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.tensorrt import cuda


class Library:
    def __init__(self, status=0):
        self.status = status
        self.calls = []
        self.cudaGetErrorString = lambda code: b"out of memory"

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, arguments))
            if name in ("cudaMalloc", "cudaStreamCreate", "cudaEventCreate"):
                arguments[0]._obj.value = 4096
            if name == "cudaEventElapsedTime":
                arguments[0]._obj.value = 1.5
            if name == "cudaDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 7}[arguments[1].value]
            if name == "cudaGetDeviceProperties":
                ctypes.memmove(arguments[0], b"Orin\0rest", 9)
            return self.status

        return call


def test_handles_and_facts():
    made = cuda.Cuda(Library())
    assert made.allocate(10) == 4096
    assert made.new_stream() == 4096
    assert made.elapsed_ms(1, 2) == 1.5
    assert made.compute_capability() == "8.7"
    assert made.device_name() == "Orin"


def test_copies_name_both_ends_and_the_direction():
    library = Library()
    made = cuda.Cuda(library)
    array = np.zeros(6, np.float32)
    made.to_device(4096, array, 1)
    made.to_host(array, 4096, 1)
    (_, there), (_, back) = library.calls
    assert [entry.value for entry in there] == [4096, array.ctypes.data, 24, 1, 1]
    assert [entry.value for entry in back] == [array.ctypes.data, 4096, 24, 2, 1]


def test_a_failing_call_raises_with_cudas_words():
    with pytest.raises(ModelError, match="cudaMalloc failed: out of memory"):
        cuda.Cuda(Library(status=2)).allocate(10)


def test_a_library_without_a_gpu_is_unavailable(monkeypatch):
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: Library(status=100))
    with pytest.raises(UnavailableError, match="no usable NVIDIA GPU"):
        cuda.load_cuda()


def test_no_library_is_unavailable(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open")

    monkeypatch.setattr(cuda.ctypes, "CDLL", refuse)
    with pytest.raises(UnavailableError, match="cannot open"):
        cuda.load_cuda()
