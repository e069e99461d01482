"""NVIDIA's ``trtexec``: where it is, what it says of itself and of the GPU, and engines built with it.

Device side: standard library only. Options, log lines and files are those of the program's own source,
samples/trtexec and samples/common of github.com/NVIDIA/TensorRT at v10.3.0, v10.13.0 and v11.1. The option
parsers of these three, compiled, take every command line that is given here; the program itself has not run
yet, as that takes a GPU.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.tensorrt.cache import Device, keep, kept_for, read_model
from edgeq.runtimes.tensorrt.engine import WORKSPACE_BYTES, check_dla, version_of

__all__ = ["BETTER", "Trtexec", "build", "find_trtexec", "look"]

BETTER = "sudo apt install python3-libnvinfer, then 'edgeq device setup DEVICE --force', which makes it seen"
"""What a board with ``trtexec`` alone does well to get."""

_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")
_VERSION = re.compile(r"TensorRT v(\d+)(\d\d)(\d\d)\]")
"""``&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # ...`` is the first line of every run."""
_DEVICE = re.compile(r"Selected Device: (.+)$", re.MULTILINE)
_CAPABILITY = re.compile(r"Compute Capability: (\d+\.\d+)\s*$", re.MULTILINE)
_NO_FILE = "/nonexistent/engine"
_LOOK_S, _BUILD_S = 120.0, 1800.0
_MOST_ERRORS, _MOST_CHARS = 3, 300


@dataclass(frozen=True)
class Trtexec:
    """The program, TensorRT's version in it, and the GPU that it finds."""

    path: str
    version: str
    """``10.3.0``"""
    device: Device | None
    """None: it finds none."""

    @property
    def major(self) -> int:
        """Of the version."""
        return version_of(self.version)[0]

    def run(self, arguments: list[str], *, folder: Path, timeout_s: float, what: str) -> str:
        """What it printed.

        Args:
            arguments: paths in them are relative to the folder, or absolute.
            folder: where it runs, and leaves its files.
            timeout_s: it is ended after this.
            what: for the error.

        Raises:
            ModelError: it failed; with its own words.
        """
        try:
            done = subprocess.run(
                [self.path, *arguments], cwd=folder, capture_output=True, text=True, errors="replace",
                timeout=timeout_s, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise ModelError(f"trtexec: {what} failed: {error}") from error
        if done.returncode != 0:
            raise ModelError(f"trtexec: {what} failed: {_errors(done.stdout + done.stderr)}")
        return done.stdout


def find_trtexec() -> str | None:
    """Path of the program: on the search path, or where JetPack puts it; None: it is not here."""
    found = shutil.which("trtexec")
    return found or next((place for place in _PLACES if Path(place).is_file()), None)


def look(program: str) -> Trtexec:
    """What the program says of itself, and of the GPU.

    It is asked for an engine that is not there: it fails, but only after it has named both.

    Raises:
        UnavailableError: it does not run, or is older than TensorRT 10.
    """
    try:
        done = subprocess.run(
            [program, f"--loadEngine={_NO_FILE}"], capture_output=True, text=True, errors="replace",
            timeout=_LOOK_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"{program} does not run: {error}") from error
    said = done.stdout + done.stderr
    match = _VERSION.search(said)
    if match is None or int(match[1]) < 10:
        raise UnavailableError(
            f"{program} is not of TensorRT 10 or later", fix="JetPack 6.1 or later brings TensorRT 10.3"
        )
    name, capability = _DEVICE.search(said), _CAPABILITY.search(said)
    device = None if name is None or capability is None else Device(name[1].strip(), capability[1])
    return Trtexec(program, ".".join(str(int(part)) for part in match.groups()), device)


def build(program: Trtexec, artifact: Path, options: SessionOptions, folder: Path) -> tuple[Path, bool]:
    """(file of a model's engine, whether it came from the cache); what is built is cached.

    Args:
        program: whom to build with.
        artifact: ONNX.
        options: how it is to run.
        folder: temporary; the engine lies in it where it cannot be cached.

    Raises:
        ModelError: TensorRT refuses the model.
        UnavailableError: there is no GPU, or a DLA core was asked for that TensorRT cannot use.
    """
    if program.device is None:
        raise UnavailableError(
            f"{program.path} finds no NVIDIA GPU",
            fix=f"see its own words: {program.path} --loadEngine={_NO_FILE}",
        )
    if options.dla_core is not None:
        check_dla(program.version)
    kept = kept_for(program.version, read_model(artifact), options, program.device)
    if kept.engine.is_file():
        return kept.engine, True
    # Both files are made here and kept when they are whole: the program writes them in place.
    made, timing = folder / "model.engine", folder / "timing.cache"
    with contextlib.suppress(OSError):
        shutil.copyfile(kept.timing, timing)
    command = [f"--onnx={artifact.absolute()}", f"--saveEngine={made}", "--skipInference"]
    command += ["--profilingVerbosity=detailed", f"--timingCacheFile={timing}"]
    command += [f"--memPoolSize=workspace:{WORKSPACE_BYTES >> 20}"]
    # TensorRT 11 knows strongly typed networks only.
    command += ["--stronglyTyped"] if program.major == 10 else []
    command += [] if options.default_float else ["--noTF32"]
    command += [] if options.dla_core is None else [f"--useDLACore={options.dla_core}", "--allowGPUFallback"]
    program.run(command, folder=folder, timeout_s=_BUILD_S, what=f"building {artifact.name}")
    for source, target in ((made, kept.engine), (timing, kept.timing)):
        with contextlib.suppress(OSError):
            keep(target, source.read_bytes())
    if not made.is_file():
        raise ModelError(f"trtexec built {artifact.name} and left no engine")
    return made, False


def _errors(said: str) -> str:
    """Its first lines of severity error, without their time stamps."""
    lines = [line.partition("[E]")[2].strip() for line in said.splitlines() if "[E]" in line]
    return "; ".join(lines[:_MOST_ERRORS])[:_MOST_CHARS] or "no message"
