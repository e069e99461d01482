"""Stand-ins for TensorRT's module and the CUDA runtime: enough of their documented API to run a session."""

from __future__ import annotations

import enum
import hashlib
import json
from types import SimpleNamespace

import numpy as np


class FakeCuda:
    """Device memory is a dictionary of arrays; nothing overlaps."""

    def __init__(self):
        self.memory = {}
        self.streams, self.events = set(), set()
        self._next = 1000
        self.clock_ms = 0.0

    def device_name(self):
        return "Orin"

    def compute_capability(self):
        return "8.7"

    def allocate(self, size_bytes):
        self._next += 1
        self.memory[self._next] = np.zeros(size_bytes, np.uint8)
        return self._next

    def free(self, address):
        del self.memory[address]

    def new_stream(self):
        self.streams.add(7)
        return 7

    def destroy_stream(self, stream):
        self.streams.remove(stream)

    def new_event(self):
        self._next += 1
        self.events.add(self._next)
        return self._next

    def destroy_event(self, event):
        self.events.remove(event)

    def record(self, event, stream):
        assert stream in self.streams

    def elapsed_ms(self, start, end):
        return 0.25

    def to_device(self, address, array, stream):
        assert array.flags.c_contiguous
        self.memory[address][:] = array.view(np.uint8).reshape(-1)

    def to_host(self, array, address, stream):
        array.view(np.uint8).reshape(-1)[:] = self.memory[address]

    def wait(self, stream):
        assert stream in self.streams


class FakeTensorRT:
    """One engine: ``y = 2 x`` for x of (1, 3, 4, 4)."""

    class TensorIOMode(enum.Enum):
        INPUT = 1
        OUTPUT = 2

    class LayerType(enum.Enum):
        CONVOLUTION = 0
        ACTIVATION = 1

    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(TF32="tf32", GPU_FALLBACK="fallback")
    DeviceType = SimpleNamespace(DLA="dla")
    LayerInformationFormat = SimpleNamespace(JSON="json")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    def __init__(
        self, cuda, *, version="10.3.0", dla_cores=2, shape=(1, 3, 4, 4), refuse="", precision="Int8"
    ):
        self.__version__ = version
        self.cuda, self.dla_cores, self.shape = cuda, dla_cores, shape
        self.refuse, self.precision = refuse, precision
        self.builds = 0
        self.damaged = False
        self.network_flags: list[int] = []
        self.configs: list[SimpleNamespace] = []

    class Logger:
        ERROR = 1

        def __init__(self, severity):
            self.severity = severity

    @staticmethod
    def nptype(dtype):
        return np.dtype(dtype)

    def Runtime(self, logger):  # noqa: N802
        return SimpleNamespace(DLA_core=-1, deserialize_cuda_engine=self._deserialize)

    def Builder(self, logger):  # noqa: N802
        builder = SimpleNamespace(num_DLA_cores=self.dla_cores, logger=logger)
        builder.create_network = self._network
        builder.create_builder_config = self._config
        builder.build_serialized_network = self._build
        return builder

    def OnnxParser(self, network, logger):  # noqa: N802
        error = SimpleNamespace(desc=lambda: self.refuse, node_name=lambda: "conv1")
        return SimpleNamespace(
            parse=lambda model: self._parse(network, model), num_errors=1, get_error=lambda index: error
        )

    def _parse(self, network, model):
        network.model = model
        return not self.refuse

    def _network(self, flags):
        self.network_flags.append(flags)
        layers = [
            SimpleNamespace(name="conv1", type=self.LayerType.CONVOLUTION),
            SimpleNamespace(name="relu1", type=self.LayerType.ACTIVATION),
        ]
        return SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index], model=b"")

    def _config(self):
        config = SimpleNamespace(flags={"tf32"}, pool=None, timing=None)
        config.clear_flag = config.flags.discard
        config.set_flag = config.flags.add
        config.set_memory_pool_limit = lambda kind, size: setattr(config, "pool", (kind, size))
        config.create_timing_cache = lambda data: SimpleNamespace(serialize=lambda: data + b"timed ")
        config.set_timing_cache = lambda cache, ignore: setattr(config, "timing", cache)
        config.get_timing_cache = lambda: config.timing
        self.configs.append(config)
        return config

    def _build(self, network, config):
        self.builds += 1
        return b"plan:" + hashlib.sha256(network.model).digest()

    def _deserialize(self, plan):
        if self.damaged:
            self.damaged = False
            return None
        return FakeEngine(self) if bytes(plan).startswith(b"plan:") else None


class FakeEngine:
    num_io_tensors = 2

    def __init__(self, trt):
        self._trt = trt

    def get_tensor_name(self, index):
        return ("x", "y")[index]

    def get_tensor_mode(self, name):
        return self._trt.TensorIOMode.INPUT if name == "x" else self._trt.TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return self._trt.shape

    def get_tensor_dtype(self, name):
        return "float32"

    def create_execution_context(self):
        return FakeContext(self._trt.cuda)

    def create_engine_inspector(self):
        entry = {
            "Name": "conv1 + relu1",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Datatype": self._trt.precision}],
            "Weights": {"Type": self._trt.precision},
            "Outputs": [{"Name": "y", "Datatype": "Float"}],
            "Metadata": "[ONNX Layer: conv1][ONNX Layer: relu1]",
        }
        text = json.dumps({"Layers": [entry], "Bindings": ["x", "y"]})
        return SimpleNamespace(get_engine_information=lambda kind: text)


class FakeContext:
    def __init__(self, cuda):
        self._cuda = cuda
        self.addresses = {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        memory = self._cuda.memory
        values = memory[self.addresses["x"]].view(np.float32) * 2
        memory[self.addresses["y"]][:] = values.view(np.uint8)
        return True
