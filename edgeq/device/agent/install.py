"""A virtual environment for the runtime: made whole beside the old one, then put in its place.

Standard library only. pip comes as a wheel from the host, so a board without ``ensurepip`` (Debian's python3
without python3-venv) does as well, and nothing needs root.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq.bundle.check import check_name
from edgeq.device.agent.store import DiskFull, Store
from edgeq.device.agent.streams import Answer
from edgeq.errors import UnavailableError

__all__ = ["MARKER", "install"]

MARKER = "edgeq-setup.json"
_SYSTEM_MODULE = "tensorrt"
_PIP_S = 1800
_TAIL_CHARS = 1500


def install(request: Mapping[str, Any], store: Store, answer: Answer) -> dict[str, Any]:
    """Make the environment.

    Args:
        request: ``wheels`` (file name -> SHA-256) that were sent before; ``requirements``, pinned;
            ``offline``: from these wheels alone; ``runtimes``, for the note that is left.
        store: holds the wheels.
        answer: told the steps.

    Raises:
        UnavailableError: the Python there cannot make environments, or pip fails.
        DiskFull: no room.
    """
    target, fresh = store.root / "venv", store.root / f"venv-{os.getpid()}"
    wheels = fresh / "wheels"
    for left in store.root.glob("venv-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        answer.progress("virtual environment", 0, 3)
        _run(
            [sys.executable, "-m", "venv", "--without-pip", *_seen_through(), str(fresh)],
            "a virtual environment cannot be made",
        )
        for name, sha256 in request["wheels"].items():
            check_name(str(name))
            store.place(str(sha256), wheels / str(name))
        answer.progress("install", 1, 3)
        python = str(fresh / "bin" / "python")
        _run([python, *_pip(wheels), *_pip_arguments(request, wheels)], "pip cannot install the runtime")
        answer.progress("check", 2, 3)
        packages = _installed(python)
        note = {"schema": 1, "runtimes": list(request["runtimes"]), "packages": packages}
        (fresh / MARKER).write_text(json.dumps(note))
        shutil.rmtree(wheels, ignore_errors=True)
        _swap(fresh, target)
        # Installed, they are of no more use, and a board's card is small.
        for sha256 in request["wheels"].values():
            store.drop(str(sha256))
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return {"packages": packages}


def _seen_through() -> list[str]:
    """TensorRT's module comes to a Jetson with JetPack's own packages only, so an environment there has to
    see them."""
    return ["--system-site-packages"] if importlib.util.find_spec(_SYSTEM_MODULE) is not None else []


def _pip(wheels: Path) -> list[str]:
    """How to call pip: from its wheel, which Python can run as it is."""
    found = sorted(wheels.glob("pip-*.whl"))
    if not found:
        raise UnavailableError("the host sent no pip")
    return [f"{found[-1]}/pip"]


def _pip_arguments(request: Mapping[str, Any], wheels: Path) -> list[str]:
    common = [
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--no-cache-dir",
        "--no-compile",
    ]
    if not request["offline"]:
        return [*common, "--only-binary=:all:", *map(str, request["requirements"])]
    lines = [
        f"./{name} --hash=sha256:{sha256}"
        for name, sha256 in sorted(request["wheels"].items())
        if not str(name).startswith("pip-")
    ]
    listed = wheels / "requirements.txt"
    listed.write_text("\n".join(lines) + "\n")
    return [*common, "--no-index", "--no-deps", "--require-hashes", "-r", str(listed)]


def _installed(python: str) -> dict[str, str]:
    """Names and versions of what is in the environment itself."""
    code = (
        "import json, sys; from importlib.metadata import distributions; "
        "print(json.dumps({d.metadata['Name']: d.version for d in distributions() "
        "if str(d.locate_file('')).startswith(sys.prefix)}))"
    )
    packages = json.loads(_run([python, "-I", "-c", code], "the environment does not run"))
    return {str(name): str(version) for name, version in packages.items()}


def _run(command: Sequence[str], what: str) -> str:
    """The command's output.

    Raises:
        UnavailableError: it failed; with the end of what it said.
        DiskFull: it had no room.
    """
    wheels = Path(command[0]).parents[1] / "wheels"
    folder = wheels if wheels.is_dir() else None
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PIP_S, check=False, env=environment, cwd=folder,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"{what}: {error}") from error
    if done.returncode == 0:
        return done.stdout
    said = (done.stderr.strip() or done.stdout.strip())[-_TAIL_CHARS:]
    if "No space left" in said or "quota exceeded" in said:
        raise DiskFull(f"{what}: no room on the device", fix="free some space on the device")
    fix = "sudo apt install python3-venv" if "No module named venv" in said else None
    raise UnavailableError(f"{what}: {said}", fix=fix)


def _swap(fresh: Path, target: Path) -> None:
    """The new environment in the old one's place; what runs from the old one keeps its open files."""
    old = target.with_name(f"venv-old-{os.getpid()}")
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
