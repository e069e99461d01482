"""Set a board up and clean it: everything under edgeq's folder in the user's home, nothing as root."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.device.agent.wire import MAX_LINE_BYTES
from edgeq.device.client import Device, Upload
from edgeq.device.connect import Interpreter, probe, run_script
from edgeq.device.errors import DeviceError
from edgeq.device.link import DeviceLink
from edgeq.device.process import quoted_path
from edgeq.device.wheels import (
    DECODER,
    RUNTIME_PACKAGES,
    Platform,
    bundled_pip,
    download,
    installs,
    pinned,
    platform_of,
    uploads,
)
from edgeq.device.worker import Worker
from edgeq.errors import InputError, UnavailableError

__all__ = ["SetUp", "clean", "set_up"]

_KEPT = ("agent", "run", "store", "venv")
Note = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SetUp:
    """What is on the device now."""

    packages: dict[str, str]
    changed: bool
    """False: all of it was there."""
    sent_mb: float
    python: str


def set_up(
    link: DeviceLink,
    runtimes: Sequence[str],
    *,
    offline: bool,
    wheels: Path | None = None,
    force: bool = False,
    note: Note = lambda text: None,
    progress: Progress | None = None,
) -> SetUp:
    """The device with an environment that holds numpy, OpenCV and the runtimes, or sees the system's.

    Args:
        link: the device.
        runtimes: by name.
        offline: the device has no package index: wheels are got here and sent.
        wheels: a folder of wheels to send instead of downloading them.
        force: make it anew where it is there.
        note: told what is done.
        progress: told stage, done and total.

    Raises:
        InputError: a runtime that is not installed this way.
        DeviceError: the device refuses, has no room, or is of a kind that there are no wheels for.
        UnavailableError: the wheels cannot be had.
    """
    unknown = [name for name in runtimes if name not in RUNTIME_PACKAGES]
    if unknown:
        raise InputError(
            f"edgeq cannot install the runtime {unknown[0]!r} on a device",
            fix=f"it can install {', '.join(RUNTIME_PACKAGES)}; others come with the board's own system",
        )
    with (
        tempfile.TemporaryDirectory(prefix="edgeq-wheels-") as folder,
        Worker(link, interpreter=Interpreter.SYSTEM, note=note) as worker,
    ):
        found = worker.device.probe
        assert found is not None
        packages, there = _noted(link)
        if set(runtimes) <= set(there) and not force:
            return SetUp(packages, False, 0.0, str(found.python))
        # The environment is made anew, with the runtimes that it had.
        runtimes = list(dict.fromkeys([*there, *runtimes]))
        platform = platform_of(found, link.name)
        requirements, files = _gather(platform, runtimes, Path(folder), offline, wheels, note)
        files = [file for file in files if not file.path.name.startswith("pip-")]
        files.append(bundled_pip(Path(folder) / "pip"))
        packages = _install(worker, files, requirements, runtimes, offline, progress)
        for name in runtimes:
            if not installs(name):
                note(f"{link.name}: {name} has to be part of its own system: see 'edgeq device check'")
        return SetUp(packages, True, worker.device.sent_bytes / 1e6, str(found.python))


def clean(link: DeviceLink) -> None:
    """Remove everything that edgeq keeps on the device.

    Raises:
        DeviceError: it cannot be removed.
    """
    link.open()
    try:
        root = quoted_path(link.folder)
        names = " ".join(_KEPT)
        script = (
            f"[ -d {root} ] || exit 0; cd {root} && chmod -R u+w . && rm -rf {names} venv-* && cd / && "
            f"rmdir {root}"
        )
        status, _, said = run_script(link, script)
        if status != 0:
            last = (said.splitlines() or [f"status {status}"])[-1]
            raise DeviceError(
                f"{link.name}: {link.folder} cannot be removed: {last}", fix="remove it by hand"
            )
    finally:
        link.close()


def _noted(link: DeviceLink) -> tuple[dict[str, str], list[str]]:
    """Packages and runtimes of the environment that is there; empty where there is none."""
    found = probe(link, interpreter=Interpreter.ENVIRONMENT)
    note: dict[str, Any] = found.setup or {}
    packages, there = note.get("packages"), note.get("runtimes")
    if not isinstance(packages, dict) or not isinstance(there, list):
        return {}, []
    known = [name for name in RUNTIME_PACKAGES if name in there]
    return {str(name)[:100]: str(version)[:100] for name, version in packages.items()}, known


def _gather(
    platform: Platform, runtimes: Sequence[str], folder: Path, offline: bool, wheels: Path | None, note: Note
) -> tuple[list[str], list[Upload]]:
    """Requirements, and the wheels of them where they are sent from here."""
    if wheels is not None:
        return [], uploads(wheels)
    choices = _choices(runtimes)
    if not offline:
        return choices[0], []
    note(
        f"downloading wheels for Python {platform.python[0]}.{platform.python[1]} on {platform.machine}, "
        f"glibc 2.{platform.glibc_minor}"
    )
    failure: UnavailableError | None = None
    for number, requirements in enumerate(choices):
        try:
            return requirements, download(platform, requirements, folder / str(number))
        except UnavailableError as error:
            failure = failure or error
            if number + 1 < len(choices):
                note(f"{error.message}; trying {', '.join(choices[number + 1])}")
    assert failure is not None
    raise failure


def _choices(runtimes: Sequence[str]) -> list[list[str]]:
    """Requirements to try: the versions of this machine, then any, then older packages."""
    first = [package for name in runtimes for package in RUNTIME_PACKAGES[name][0]]
    last = [package for name in runtimes for package in RUNTIME_PACKAGES[name][-1]]
    common = ["numpy", DECODER]
    choices = [
        [*pinned([*first, DECODER]), "numpy"],
        [*pinned(first), *common],
        [*first, *common],
        [*last, *common],
    ]
    unique: list[list[str]] = []
    for choice in choices:
        if choice not in unique:
            unique.append(choice)
    return unique


def _install(
    worker: Worker,
    files: Sequence[Upload],
    requirements: Sequence[str],
    runtimes: Sequence[str],
    offline: bool,
    progress: Progress | None,
) -> dict[str, str]:
    request = {
        "wheels": {file.path.name: file.sha256 for file in files},
        "requirements": list(requirements),
        "offline": offline or len(files) > 1,
        "runtimes": list(runtimes),
    }
    if len(str(request)) > MAX_LINE_BYTES // 2:
        raise InputError("that are too many wheels")

    def run(device: Device) -> Any:
        device.upload(files, on_progress=progress)
        return device.request("install", request, on_progress=progress)

    answer = worker.do(run)
    packages = answer.get("packages") if isinstance(answer, dict) else None
    if not isinstance(packages, dict):
        raise DeviceError(f"{worker.name}: does not tell what was installed")
    return {str(name)[:100]: str(version)[:100] for name, version in packages.items()}
