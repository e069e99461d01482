"""What TensorRT does with a model, found out without a GPU: TensorRT-RTX builds it for a compute
capability.

TensorRT-RTX is NVIDIA's TensorRT for consumer GPUs, with the same ONNX parser and the same optimiser, and
it builds ahead of time. So it shows whether a model is accepted and which layers are INT8. It is not the
library that will run on a Jetson or a T4, and it picks other kernels: its result is a conformance check,
never a latency.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.tensorrt.layers import EngineLayer, layers_from_log

__all__ = ["INSTALL", "Conformance", "Refusal", "check_available", "conformance", "stand_in"]

INSTALL = 'pip install "edgeq[tensorrt-check]"'
_MODULE = "tensorrt_rtx_bindings"
_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""What TensorRT-RTX 1.7 builds INT8 engines for. For 7.5 it builds too, but runs every convolution in float,
which says nothing of TensorRT on a T4, whose tensor cores have INT8."""
_STAND_INS = {"7.5": "8.6", "8.7": "8.6", "9.0": "8.9", "10.0": "12.0", "10.3": "12.0", "11.0": "12.0"}
"""Jetson's and data-centre GPUs: a consumer GPU of the same or the next generation."""
_TIMEOUT_S = 600.0
_MOST_CHARS = 300
_PACKAGE_PARENT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Refusal:
    """Why there is no engine."""

    message: str
    node: str
    """ONNX node, empty where TensorRT does not say."""


@dataclass(frozen=True)
class Conformance:
    """A build with TensorRT-RTX."""

    version: str
    built_for: str
    """Compute capability that it was built for: ``8.6``."""
    stands_for: str
    """Compute capability of the target: ``8.7``."""
    layers: tuple[EngineLayer, ...]
    refusals: tuple[Refusal, ...]
    """Not empty: there is no engine, so there are no layers."""


def check_available() -> bool:
    """Whether the extra ``tensorrt-check`` is installed; nothing is loaded to find out."""
    return importlib.util.find_spec(_MODULE) is not None


def stand_in(capability: str) -> str:
    """The compute capability that TensorRT-RTX builds for in place of a target's.

    Raises:
        UnavailableError: there is none near enough.
    """
    found = capability if capability in _CAPABILITIES else _STAND_INS.get(capability)
    if found is None:
        raise UnavailableError(
            f"TensorRT-RTX builds nothing near compute capability {capability}",
            fix=f"it builds for {', '.join(_CAPABILITIES)}; audit on the device itself with --on",
        )
    return found


def conformance(model: Path, capability: str, *, timeout_s: float = _TIMEOUT_S) -> Conformance:
    """Parse and build a model for a GPU that is not here.

    Args:
        model: QDQ or float ONNX.
        capability: of the target: ``8.7``.
        timeout_s: for the whole build.

    Raises:
        UnavailableError: the extra is not installed, or its library does not load here.
        ModelError: the build crashed or took too long.
    """
    if not check_available():
        raise UnavailableError("TensorRT-RTX is not installed, so nothing can be built here", fix=INSTALL)
    built_for = stand_in(capability)
    command = [sys.executable, "-m", "edgeq.runtimes.tensorrt.rtx_build"]
    command += [str(model.resolve()), f"SM{built_for.replace('.', '')}"]
    try:
        # From here, so that it is this edgeq that runs and nothing that lies in the user's folder.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=_PACKAGE_PARENT
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"TensorRT-RTX did not finish {model.name} within {timeout_s:g} s",
            fix="check the model with 'edgeq audit' on the device",
        ) from error
    version, layers, refusals = _read(done.stdout)
    if done.returncode not in (0, 1) or not version:
        _raise_failed(done, model, version)
    if not layers and not refusals:
        raise ModelError(f"TensorRT-RTX {version} built {model.name} but told nothing about its layers")
    return Conformance(version, built_for, capability, layers, refusals)


def _raise_failed(done: subprocess.CompletedProcess[str], model: Path, version: str) -> None:
    """Raise for a subprocess that did not come to an end of its own."""
    last = (done.stderr.strip().splitlines() or ["no message"])[-1][:_MOST_CHARS]
    if done.returncode < 0:
        try:
            what = signal.Signals(-done.returncode).name
        except ValueError:
            what = f"signal {-done.returncode}"
        raise ModelError(
            f"TensorRT-RTX {version} crashed on {model.name} ({what}): {last}",
            fix="look at the linter's findings first; the crash is NVIDIA's",
        )
    raise UnavailableError(f"TensorRT-RTX cannot be used here: {last}", fix=INSTALL)


def _read(text: str) -> tuple[str, tuple[EngineLayer, ...], tuple[Refusal, ...]]:
    """Version, layers and refusals of the subprocess's lines."""
    version, lines, refusals = "", [], []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the library prints lines of its own
        if not isinstance(entry, dict):
            continue
        version = str(entry.get("version", version))
        if "layer" in entry:
            lines.append(str(entry["layer"]))
        if "error" in entry:
            message = " ".join(str(entry["error"]).split())[:_MOST_CHARS]
            refusals.append(Refusal(message, str(entry.get("node", ""))))
    return version, layers_from_log(lines), tuple(refusals)
