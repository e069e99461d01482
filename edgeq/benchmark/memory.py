"""Peak memory of one artifact, measured in a process of its own.

Within one process several sessions share an allocator and a high-water mark that never falls, so a
per-contestant number from there would be wrong. Run as ``python -m edgeq.benchmark.memory`` the module
loads one session, infers a few times and prints one line of JSON.

The factory named on the command line comes from edgeq's own code, never from a bundle.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.benchmark.machine import Machine
from edgeq.errors import EdgeqError, UnavailableError
from edgeq.runtimes.base import Session, SessionOptions
from edgeq.runtimes.options import options_from_json, options_json
from edgeq.types import TensorInfo

__all__ = ["PeakMemory", "SessionFactory", "peak_memory", "peak_memory_mb"]

SessionFactory = Callable[[Path, SessionOptions], Session]
_TAIL_CHARS = 2000


@dataclass(frozen=True)
class PeakMemory:
    """High-water marks of a process that runs one artifact, in MB of 10^6 bytes."""

    peak_mb: float
    """Of the whole process: interpreter, numpy, runtime, model, activations."""
    before_load_mb: float
    """With the factory's module imported and nothing loaded: the floor that every artifact shares."""

    @property
    def model_mb(self) -> float:
        """What loading and running the artifact added."""
        return max(0.0, self.peak_mb - self.before_load_mb)

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "peak_memory_mb": self.peak_mb,
            "before_load_mb": self.before_load_mb,
            "model_memory_mb": self.model_mb,
        }


def peak_memory(
    artifact: Path,
    factory: str,
    *,
    options: SessionOptions | None = None,
    shape: Sequence[int] | None = None,
    runs: int = 3,
    timeout_s: float = 120.0,
    python: str = sys.executable,
) -> PeakMemory:
    """Peak memory of loading ``artifact`` and inferring, in a subprocess.

    Args:
        artifact: what the runtime loads.
        factory: ``module:function`` of the runtime's session: takes (path, `SessionOptions`).
        options: threads and precision; None: the default.
        shape: of the input; None: the session's own (dimensions that are unknown count as 1).
        runs: inferences; the second may still grow an arena that the first did not.
        timeout_s: the subprocess is ended after this.
        python: interpreter to use.

    Raises:
        UnavailableError: the subprocess failed, or this system does not tell the high-water mark.
    """
    chosen = options or SessionOptions()
    command = [python, "-m", "edgeq.benchmark.memory", str(artifact.absolute()), "--factory", factory]
    command += ["--options", json.dumps(options_json(chosen)), "--runs", str(runs)]
    command += ["--shape", ",".join(str(size) for size in shape)] if shape is not None else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"memory of {artifact.name} cannot be measured: {error}") from error
    if done.returncode != 0:
        reason = done.stderr.strip()[-_TAIL_CHARS:] or f"exit status {done.returncode}"
        raise UnavailableError(f"memory of {artifact.name} cannot be measured: {reason}")
    return _parse(done.stdout, artifact)


def peak_memory_mb(artifact: Path, factory: str, *, options: SessionOptions | None = None) -> float:
    """The peak of the whole process alone; see `peak_memory`."""
    return peak_memory(artifact, factory, options=options).peak_mb


def _parse(output: str, artifact: Path) -> PeakMemory:
    """The last line of the subprocess's output; a runtime may print lines of its own before."""
    try:
        data = json.loads(output.strip().splitlines()[-1])
        return PeakMemory(float(data["peak_memory_mb"]), float(data["before_load_mb"]))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UnavailableError(f"memory of {artifact.name}: the subprocess gave no numbers") from error


def _load_factory(name: str) -> SessionFactory:
    module, _, function = name.partition(":")
    factory: SessionFactory = getattr(importlib.import_module(module), function)
    return factory


def _zeros(info: TensorInfo, shape: Sequence[int] | None) -> npt.NDArray[Any]:
    sizes = shape or [size if isinstance(size, int) and size > 0 else 1 for size in info.shape]
    return np.zeros(tuple(sizes), dtype=np.dtype(info.dtype))


def _measure_here(
    artifact: Path, factory: str, *, options: SessionOptions, shape: Sequence[int] | None, runs: int
) -> PeakMemory:
    """Load and infer in this process, whose only job this is."""
    machine = Machine()
    open_session = _load_factory(factory)
    before_mb = machine.peak_rss_mb()
    session = open_session(artifact, options)
    tensor = _zeros(session.inputs[0], shape)
    for _ in range(runs):
        session.infer(tensor)
    peak_mb = machine.peak_rss_mb()
    if before_mb is None or peak_mb is None:
        raise UnavailableError("this system does not tell a process's peak memory")
    return PeakMemory(peak_mb, before_mb)


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edgeq.benchmark.memory", description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--factory", required=True, help="module:function that opens a session")
    parser.add_argument("--options", default="{}", help="session options as JSON, where not the default")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shape", help="sizes with commas between")
    given = parser.parse_args(arguments)
    shape = [int(size) for size in given.shape.split(",")] if given.shape else None
    try:
        options = options_from_json(json.loads(given.options))
        peak = _measure_here(given.artifact, given.factory, options=options, shape=shape, runs=given.runs)
    except EdgeqError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(peak.to_json()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
