"""A session of TensorRT through ``trtexec``, where its Python module is missing. Device side: numpy only.

A process for each inference, which loads the engine anew: right, but slow. Latency comes from the program
itself, which runs many inferences in one process and writes down what the GPU's clock said of each.
Sources: see `edgeq.runtimes.tensorrt.trtexec`. It has not run on a GPU yet.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.tensorrt.cache import Device
from edgeq.runtimes.tensorrt.details import Details
from edgeq.runtimes.tensorrt.trtexec import BETTER, build, look
from edgeq.types import TensorInfo

__all__ = ["TrtexecSession"]

_WRITTEN = re.compile(
    r"Writing file for (input|output) binding (.+) "
    r"\(with datatype (\w+) and dimensions ([\d.]*)\) to ([^/]+)$",
    re.MULTILINE,
)
"""One line for each tensor that ``--dumpRawBindingsToFile`` wrote."""
_TYPES = {
    **{"fp32": "float32", "fp16": "float16", "int8": "int8", "uint8": "uint8", "bool": "bool"},
    **{"int32": "int32", "int64": "int64"},
}
_BF16 = "bf16"
_DESERIALIZE = "erializ"
"""In what TensorRT and the program say of an engine that they cannot load."""
_ONE_RUN = ["--iterations=1", "--duration=0", "--warmUp=0", "--dumpRawBindingsToFile"]
_INPUT, _LAYERS, _TIMES = "input.bin", "layers.json", "times.json"
_INFER_S, _TIME_S = 300.0, 7200.0


@dataclass(frozen=True)
class _Written:
    """One tensor of an inference, in a file."""

    is_input: bool
    name: str
    shape: tuple[int, ...]
    dtype: str
    bf16: bool
    path: Path

    @property
    def info(self) -> TensorInfo:
        """As a session tells it."""
        return TensorInfo(self.name, self.shape, self.dtype)

    def read(self) -> npt.NDArray[Any]:
        """Its values; bfloat16 as float32.

        Raises:
            ModelError: the file is not as large as the shape says.
        """
        stored = np.dtype("uint16") if self.bf16 else np.dtype(self.dtype)
        content = self.path.read_bytes()
        if len(content) != math.prod(self.shape) * stored.itemsize:
            raise ModelError(f"trtexec wrote {len(content)} bytes for {self.name} of {list(self.shape)}")
        values: npt.NDArray[Any] = np.frombuffer(content, stored).reshape(self.shape).copy()
        if self.bf16:
            # The upper half of a float32 is a bfloat16.
            values = np.left_shift(values, 16, dtype=np.uint32).view(np.float32)
        return values


class TrtexecSession:
    """An engine that ``trtexec`` runs; see `edgeq.runtimes.base.Session` and `SelfTimedSession`."""

    timing = (
        "timed by trtexec on the GPU's clock, one inference after the other: input copied in, engine, "
        "outputs copied out"
    )

    def __init__(self, program: str, artifact: Path, options: SessionOptions) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgeq-trtexec-")
        self._program = look(program)
        engine, cached = build(self._program, artifact, options, self._path())
        try:
            written = self._first(engine, options)
        except ModelError as error:
            if not cached or _DESERIALIZE not in error.message:
                raise
            # The driver may have changed since, or the file been damaged.
            engine.unlink(missing_ok=True)
            engine, cached = build(self._program, artifact, options, self._path())
            written = self._first(engine, options)
        self.layer_info = self._path(_LAYERS).read_text(errors="replace")
        """The engine inspector's JSON."""
        inputs = [entry for entry in written if entry.is_input]
        if len(inputs) != 1:
            raise ModelError(f"the model has {len(inputs)} inputs; edgeq feeds one")
        if inputs[0].bf16:
            raise ModelError("the model takes bfloat16, which edgeq does not feed")
        self._input = inputs[0].info
        self._outputs = tuple(entry.info for entry in written if not entry.is_input)
        device = self._program.device or Device("", "")
        self._details = Details(self._program.version, device, options, cached=cached)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The engine's input."""
        return (self._input,)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The engine's outputs."""
        return self._outputs

    @property
    def details(self) -> Mapping[str, str]:
        """Version, device, precision and how slow it is; after `time_runs`, warm, also the engine alone."""
        return self._details.with_times(
            by="trtexec",
            warning="TensorRT's Python module is missing, so every image starts a process of trtexec, "
            f"{self._first_s:.1f} s each: {BETTER}",
        )

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for one input tensor, in a process of its own.

        Raises:
            ModelError: the tensor does not fit the model, or the program fails.
        """
        said = self._run([*self._fed(tensor), *_ONE_RUN], timeout_s=_INFER_S)
        return {entry.name: entry.read() for entry in self._written(said) if not entry.is_input}

    def time_runs(
        self, tensor: npt.NDArray[Any], *, runs: int, duration_s: float, warm_up_s: float
    ) -> tuple[int, ...]:
        """Nanoseconds of each of successive inferences in one process; see `SelfTimedSession`.

        Raises:
            ModelError: the tensor does not fit the model, or the program fails.
        """
        arguments = [f"--iterations={runs}", f"--duration={duration_s:.3f}", f"--exportTimes={_TIMES}"]
        arguments += [f"--warmUp={warm_up_s * 1e3:.0f}"]
        self._path(_TIMES).unlink(missing_ok=True)
        self._run([*self._fed(tensor), *arguments], timeout_s=_TIME_S + duration_s + warm_up_s)
        try:
            entries = json.loads(self._path(_TIMES).read_text())
            times = [(float(entry["latencyMs"]), float(entry["computeMs"])) for entry in entries]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"trtexec wrote no times that can be read: {error}") from error
        if len(times) < runs or min(times)[0] <= 0:
            raise ModelError(f"trtexec wrote {len(times)} times, not {runs}, or such as cannot be")
        if warm_up_s > 0:
            self._details.add_times(compute_ms for _, compute_ms in times)
        return tuple(round(latency_ms * 1e6) for latency_ms, _ in times)

    def _first(self, engine: Path, options: SessionOptions) -> list[_Written]:
        """One inference with the program's own random input: it tells inputs, outputs and layers."""
        # TensorRT 11 leaves the copies out and records a CUDA graph unless it is told; 10 is the other way
        # round, and sleeps while it waits for the GPU. So both do as the module's session does.
        alike = (
            ["--useSpinWait"] if self._program.major == 10 else ["--includeDataTransfers", "--noCudaGraph"]
        )
        dla = [] if options.dla_core is None else [f"--useDLACore={options.dla_core}"]
        self._always = [f"--loadEngine={engine}", "--exposeDMA", *alike, *dla]
        start_s = time.perf_counter()
        written = self._written(self._run([*_ONE_RUN, f"--exportLayerInfo={_LAYERS}"], timeout_s=_INFER_S))
        self._first_s = time.perf_counter() - start_s
        return written

    def _fed(self, tensor: npt.NDArray[Any]) -> list[str]:
        """The option that feeds a tensor, which lies in a file then."""
        if tensor.shape != self._input.shape:
            raise ModelError(
                f"inference failed: the input is {list(tensor.shape)}, not {list(self._input.shape)}"
            )
        # The program takes a file of twice the size without a word, so the type has to be right.
        self._path(_INPUT).write_bytes(np.ascontiguousarray(tensor, np.dtype(self._input.dtype)).tobytes())
        return [f"--loadInputs={self._input.name}:{_INPUT}"]

    def _run(self, arguments: list[str], *, timeout_s: float) -> str:
        return self._program.run(
            [*self._always, *arguments], folder=self._path(), timeout_s=timeout_s, what="inference"
        )

    def _written(self, said: str) -> list[_Written]:
        """The tensors of the last inference.

        Raises:
            ModelError: there are none, or one of a type that edgeq does not read.
        """
        found = []
        for kind, name, dtype, sizes, file in _WRITTEN.findall(said):
            if dtype != _BF16 and dtype not in _TYPES:
                raise ModelError(f"{name} is of type {dtype}, which edgeq does not read")
            shape = tuple(int(size) for size in sizes.split(".") if size)
            bf16, path = dtype == _BF16, self._path(file)
            found.append(_Written(kind == "input", name, shape, _TYPES.get(dtype, "float32"), bf16, path))
        if not found or len({entry.path for entry in found}) != len(found):
            raise ModelError("trtexec tells no inputs and outputs, or two with the same file")
        return found

    def _path(self, name: str = "") -> Path:
        return Path(self._folder.name) / name
