"""Virtual environments of the tools that edgeq is compared with: made once, kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

_GPU_WHEELS = ("nvidia-", "triton")
_SMALL = frozenset({"nvidia-ml-py"})


class MissingError(Exception):
    """An environment cannot be had on this machine; the text says why and what to do."""


@dataclass(frozen=True)
class Environment:
    """What pip is asked for, and which Python it goes into."""

    packages: tuple[str, ...]
    python: str | None = None
    """Version ``3.x`` that the packages demand; None: that of this interpreter."""


ENVIRONMENTS = {
    # 2.x without TensorFlow is for Python 3.12 only; on others pip takes an old one with TensorFlow.
    "onnx2tf": Environment(("onnx2tf==2.6.9",), "3.12"),
    # On its own: the two pin different versions of ai-edge-litert.
    "ai-edge-quantizer": Environment(("ai-edge-quantizer==0.10.0",), "3.12"),
    "ultralytics": Environment(
        (
            "ultralytics==8.4.190",
            "torch==2.13.0",
            "torchvision==0.28.0",
            "litert-torch==0.10.0",
            "ai-edge-litert==2.3.0",
            "ai-edge-quantizer==0.10.0",
        )
    ),
}


@dataclass(frozen=True)
class Installed:
    """An environment that is ready."""

    folder: Path
    facts: dict[str, Any]
    """Python, all packages with their versions, and MB on disk (10^6 bytes)."""

    def program(self, name: str) -> Path:
        """Path of ``python`` or of a package's command."""
        return _programs(self.folder) / (f"{name}.exe" if os.name == "nt" else name)


def environment(name: str, *, python312: Path | None) -> Installed:
    """The environment of a peer, made where it is not there yet.

    Args:
        name: one of ``ENVIRONMENTS``.
        python312: an interpreter of Python 3.12; None: ``python3.12`` on the PATH.

    Raises:
        MissingError: no such Python, or the packages would bring GPU wheels of gigabytes.
        FailedError: pip failed.
    """
    wanted = ENVIRONMENTS[name]
    python = _interpreter(wanted, python312)
    version = common.run([python, "-c", "import platform; print(platform.python_version())"]).stdout.strip()
    key = hashlib.sha256("\n".join((version, *wanted.packages)).encode()).hexdigest()[:12]
    folder = _cache() / f"{name}-{key}"
    facts = folder / "edgeq-environment.json"
    if facts.is_file():
        return Installed(folder, json.loads(facts.read_text(encoding="utf-8")))
    shutil.rmtree(folder, ignore_errors=True)
    common.run([python, "-m", "venv", folder])
    installed = Installed(folder, {})
    pip: list[str | Path] = [
        installed.program("python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    _refuse_gpu_wheels(name, pip, wanted)
    common.run([*pip, *wanted.packages])
    frozen = common.run([*pip[:-2], "freeze"]).stdout.split()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    common.write(facts, {"python": version, "installed_mb": round(size / 1e6), "packages": frozen})
    return environment(name, python312=python312)


def _interpreter(wanted: Environment, python312: Path | None) -> Path:
    if wanted.python is None:
        return Path(sys.executable)
    command = str(python312) if python312 else f"python{wanted.python}"
    found = shutil.which(command)
    if found is None:
        raise MissingError(
            f"it needs Python {wanted.python}, and there is no {command}: give --python312 PATH"
        )
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    if not said.startswith(f"Python {wanted.python}."):
        raise MissingError(f"it needs Python {wanted.python}, and {found} is {said.strip() or 'not Python'}")
    return Path(found)


def _refuse_gpu_wheels(name: str, pip: list[str | Path], wanted: Environment) -> None:
    """Ask pip what it would install before it does."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        common.run([*pip, "--dry-run", "--report", report, *wanted.packages])
        planned = json.loads(report.read_text(encoding="utf-8"))["install"]
    names = {str(entry["metadata"]["name"]).lower() for entry in planned}
    gpu = sorted(found for found in names - _SMALL if found.startswith(_GPU_WHEELS))
    if gpu:
        raise MissingError(
            f"{name} would install GPU wheels of several GB ({', '.join(gpu[:3])}, ...): point pip at a CPU "
            "wheel of torch for this Python, by PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL"
        )


def _programs(folder: Path) -> Path:
    return folder / ("Scripts" if os.name == "nt" else "bin")


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeq-peers"
