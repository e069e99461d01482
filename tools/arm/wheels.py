"""The device side's wheels for aarch64: fetched and installed by the host's own pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgeq.errors import UnavailableError
from tools.arm import recipe
from tools.arm.cache import whole

_LAST_LINES = 6


def fetch(folder: Path, *, python: str) -> None:
    """Download what the device side needs into `folder`.

    Args:
        folder: must not exist; appears when all of them are there.
        python: version of the root's interpreter, as ``3.11``.

    Raises:
        UnavailableError: the index cannot be reached, or has no such wheel.
    """
    with whole(folder) as unfinished:
        # Not emptied: what an interrupted run fetched is not fetched again.
        _pip("download", "--dest", unfinished, *_for_arm(python), *recipe.WHEELS)


def install(wheels: Path, folder: Path, *, python: str) -> None:
    """Unpack all `wheels` into `folder`, a Python path entry; nothing is compiled, nothing runs.

    Raises:
        UnavailableError: the wheels contradict each other.
    """
    with whole(folder) as unfinished:
        shutil.rmtree(unfinished, ignore_errors=True)
        offline: list[str | Path] = [
            "--no-index",
            "--find-links",
            wheels,
            "--target",
            unfinished,
            "--no-compile",
        ]
        _pip("install", *offline, *_for_arm(python), *recipe.WHEELS)


def versions(wheels: Path) -> dict[str, str]:
    """Version by package name of the wheels in a folder."""
    return versions_of(sorted(wheels.glob("*.whl")))


def versions_of(wheels: Iterable[Path]) -> dict[str, str]:
    """Version by package name, as wheels' file names say."""
    parts = [path.name.split("-") for path in wheels]
    return {name.lower().replace("_", "-"): version for name, version, *_ in parts}


def _for_arm(python: str) -> list[str]:
    platforms = [f"--platform={name}" for name in recipe.WHEEL_PLATFORMS]
    return [*platforms, "--python-version", python, "--implementation", "cp", "--only-binary=:all:"]


def _pip(*words: str | Path) -> None:
    command: Sequence[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise UnavailableError(
            f"pip {words[0]} for aarch64 failed:\n{tail}", fix="the package index must be reachable"
        )
