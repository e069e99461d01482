"""TensorRT through NVIDIA's ``trtexec``, where its Python module is missing. Device side: numpy only.

A process per inference, which loads the engine anew: right for an audit and for comparing a few images,
far too slow for a data set, and no way to measure latency. Written against the options of TensorRT 10 and
11; it has not run on a GPU yet.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import SessionOptions
from edgeq.types import TensorInfo

__all__ = ["TrtexecSession", "find_trtexec"]

_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")
_VERSION = re.compile(r"TensorRT v(\d+)(\d\d)(\d\d)\]")
_BUILD_S, _INFER_S = 1800.0, 120.0
_TAIL_CHARS = 300


class TrtexecSession:
    """An engine that ``trtexec`` built in a folder of its own, which goes with the session."""

    def __init__(self, program: str, artifact: Path, options: SessionOptions) -> None:
        if not artifact.is_file():
            raise ModelError(f"there is no model file {artifact}", fix="check the path")
        if options.dla_core is not None:
            raise UnavailableError(
                "the DLA needs TensorRT's Python module", fix="sudo apt install python3-libnvinfer"
            )
        self._program = program
        self._version = _version(program)
        self._folder = tempfile.TemporaryDirectory(prefix="edgeq-trtexec-")
        self._engine = self._file("model.engine")
        self.layer_info = self._build(artifact, options)
        """The engine inspector's JSON."""
        names = _io_names(self.layer_info)
        self._outputs: tuple[TensorInfo, ...] = ()
        made = {name for name in names if name in self._probe(names)}
        given = [name for name in names if name not in made]
        if len(given) != 1:
            raise ModelError(f"trtexec tells {len(given)} inputs of {artifact.name}; edgeq feeds one")
        self._input = TensorInfo(given[0], (), "float32")
        self._details = {
            "runtime": "tensorrt",
            "version": self._version,
            "unit": "GPU, by trtexec: a process for each inference",
            "threads": str(options.threads),
            "float_precision": "tf32" if options.default_float else "float32",
            "sha256": hashlib.sha256(artifact.read_bytes()).hexdigest()[:16],
        }

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The engine's input; ``trtexec`` does not tell its shape."""
        return (self._input,)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The engine's outputs."""
        return self._outputs

    @property
    def details(self) -> Mapping[str, str]:
        """Version and precision."""
        return self._details

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for one input tensor.

        Raises:
            ModelError: ``trtexec`` fails, as it does where the tensor does not fit.
        """
        source = self._file("input.bin")
        source.write_bytes(np.ascontiguousarray(tensor, np.float32).tobytes())
        return self._run([f"--loadInputs={self._input.name}:{source}"])

    def _probe(self, names: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
        """Outputs for whatever ``trtexec`` feeds by itself: they tell which tensors are outputs."""
        found = self._run([])
        self._outputs = tuple(
            TensorInfo(name, tuple(array.shape), array.dtype.name)
            for name, array in found.items()
            if name in names
        )
        return found

    def _build(self, artifact: Path, options: SessionOptions) -> str:
        layers = self._file("layers.json")
        command = [f"--onnx={artifact}", f"--saveEngine={self._engine}", "--skipInference"]
        command += ["--profilingVerbosity=detailed", f"--exportLayerInfo={layers}"]
        # TensorRT 11 knows strongly typed networks only.
        command += ["--stronglyTyped"] if self._version.startswith("10.") else []
        command += [] if options.default_float else ["--noTF32"]
        _call([self._program, *command], timeout_s=_BUILD_S, what=f"building {artifact.name}")
        return layers.read_text(errors="replace")

    def _run(self, arguments: list[str]) -> dict[str, npt.NDArray[Any]]:
        target = self._file("output.json")
        command = [f"--loadEngine={self._engine}", "--iterations=1", "--warmUp=0", "--duration=0"]
        command += [f"--exportOutput={target}", *arguments]
        _call([self._program, *command], timeout_s=_INFER_S, what="inference")
        try:
            entries = json.loads(target.read_text())
            return {str(entry["name"]): _array(entry) for entry in entries}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"trtexec wrote no outputs that can be read: {error}") from error

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name


def find_trtexec() -> str | None:
    """Path of the program: on the search path, or where JetPack puts it; None: it is not here."""
    found = shutil.which("trtexec")
    return found or next((place for place in _PLACES if Path(place).is_file()), None)


def _version(program: str) -> str:
    """``10.3`` as the program says it.

    Raises:
        UnavailableError: it does not run, or is older than TensorRT 10.
    """
    try:
        done = subprocess.run(
            [program, "--help"], capture_output=True, text=True, timeout=_INFER_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"{program} does not run: {error}") from error
    match = _VERSION.search(done.stdout + done.stderr)
    if match is None or int(match[1]) < 10:
        raise UnavailableError(
            f"{program} is not of TensorRT 10 or later", fix="JetPack 6.1 or later brings TensorRT 10.3"
        )
    return f"{int(match[1])}.{int(match[2])}.{int(match[3])}"


def _io_names(layer_info: str) -> tuple[str, ...]:
    """Inputs and outputs: ``Bindings`` of TensorRT 10, ``I/O Tensors`` of 11."""
    try:
        document = json.loads(layer_info)
        entries = document.get("Bindings") or [entry["Name"] for entry in document["I/O Tensors"]]
        return tuple(str(entry) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"trtexec's layer information names no inputs and outputs: {error}") from error


def _array(entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    shape = [int(size) for size in str(entry["dimensions"]).split("x")]
    return np.asarray(entry["values"], np.float32).reshape(shape)


def _call(command: list[str], *, timeout_s: float, what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(f"trtexec: {what} failed: {error}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line]
        raise ModelError(f"trtexec: {what} failed: {(lines or ['no message'])[0][-_TAIL_CHARS:]}")
