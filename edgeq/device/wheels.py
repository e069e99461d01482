"""Wheels for a device's platform, downloaded on this machine by its own pip, each known by its SHA-256."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeq.device.answers import Probe
from edgeq.device.client import Upload
from edgeq.device.errors import DeviceError
from edgeq.errors import UnavailableError
from edgeq.files import sha256_of

__all__ = [
    "DECODER",
    "RUNTIME_PACKAGES",
    "Platform",
    "bundled_pip",
    "download",
    "installs",
    "pinned",
    "platform_of",
]

DECODER = "opencv-python-headless"
RUNTIME_PACKAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "onnxruntime": (("onnxruntime",),),
    "openvino": (("openvino",),),
    # The second for boards with an older Python, which the maintained wheel does not serve.
    "tflite": (("ai-edge-litert",), ("tflite-runtime", "numpy<2")),
    # Comes with JetPack, whose module the environment sees, or whose trtexec edgeq finds.
    "tensorrt": ((),),
}
"""Runtime -> packages to try, in order; none: the board's own system has it."""
_WHEEL_MACHINES = ("x86_64", "aarch64")
_PIP_S = 1200
_OLDEST_GLIBC = 17


def installs(runtime: str) -> bool:
    """Whether edgeq brings the runtime itself to a device."""
    return any(RUNTIME_PACKAGES.get(runtime, ()))


@dataclass(frozen=True)
class Platform:
    """What wheels have to fit."""

    machine: str
    python: tuple[int, int]
    glibc_minor: int

    @property
    def tags(self) -> tuple[str, ...]:
        """pip's platform tags, the newest first."""
        newer = [
            f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc_minor, _OLDEST_GLIBC - 1, -1)
        ]
        return (*newer, f"manylinux2014_{self.machine}", f"linux_{self.machine}")


def platform_of(found: Probe, name: str) -> Platform:
    """The device's platform.

    Raises:
        DeviceError: one that there are no wheels of the runtimes for.
    """
    supported = "the runtimes have wheels for 64-bit Linux with glibc on x86_64 and aarch64"
    if found.system != "Linux" or found.machine not in _WHEEL_MACHINES or found.bits != 64:
        bits = f", {found.bits}-bit Python" if found.bits != 64 else ""
        raise DeviceError(
            f"{name}: wrong architecture: {found.system} on {found.machine}{bits}; {supported}",
            fix="use a 64-bit system on the device (Raspberry Pi OS 64-bit), or set its Python up by hand",
        )
    kind, version = found.libc
    parts = version.split(".")
    if kind != "glibc" or len(parts) < 2 or parts[0] != "2" or not parts[1].isdigit():
        raise DeviceError(
            f"{name}: its C library is {kind or 'not glibc'} {version}; {supported}",
            fix="use a distribution with glibc (Debian, Ubuntu, Raspberry Pi OS, Fedora)",
        )
    assert found.version is not None
    return Platform(found.machine, found.version[:2], min(int(parts[1]), 60))


def pinned(packages: Sequence[str]) -> list[str]:
    """Each package at the version that is installed here, so that device and host compute the same."""
    out = []
    for package in packages:
        try:
            plain = package.replace("<", " ").split()[0]
            out.append(package if plain != package else f"{package}=={metadata.version(package)}")
        except metadata.PackageNotFoundError:
            out.append(package)
    return out


def download(platform: Platform, requirements: Sequence[str], folder: Path) -> list[Upload]:
    """The wheels of the requirements and of all that they need.

    Raises:
        UnavailableError: pip cannot get them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python = f"{platform.python[0]}{platform.python[1]}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--dest", str(folder), "--python-version", python]
    command += ["--implementation", "cp", "--abi", f"cp{python}", "--abi", "abi3", "--abi", "none"]
    command += [part for tag in platform.tags for part in ("--platform", tag)]
    try:
        done = subprocess.run(
            [*command, *requirements],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"pip cannot be run here: {error}") from error
    if done.returncode != 0:
        lines = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()
        raise UnavailableError(
            f"no wheels of {', '.join(requirements)} for Python {platform.python[0]}.{platform.python[1]} on "
            f"{platform.machine}: {(lines or ['pip said nothing'])[0].strip()}",
            fix="connect this machine to a package index, or give --wheels FOLDER with the wheels",
        )
    return uploads(folder)


def uploads(folder: Path) -> list[Upload]:
    """The wheels in a folder.

    Raises:
        UnavailableError: there is none.
    """
    wheels = [Upload(path, sha256_of(path), path.stat().st_size) for path in sorted(folder.glob("*.whl"))]
    if not wheels:
        raise UnavailableError(f"there are no wheels in {folder}")
    return wheels


def bundled_pip(folder: Path) -> Upload:
    """pip as a wheel: the one that this Python brings along, else downloaded.

    Raises:
        UnavailableError: neither.
    """
    places = [
        Path(sysconfig.get_paths()["stdlib"]) / "ensurepip" / "_bundled",
        Path("/usr/share/python-wheels"),
    ]
    for place in places:
        found = sorted(place.glob("pip-*.whl")) if place.is_dir() else []
        if found:
            return Upload(found[-1], sha256_of(found[-1]), found[-1].stat().st_size)
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        os.fspath(folder),
        "pip",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_S, check=False)
    found = sorted(folder.glob("pip-*.whl"))
    if done.returncode != 0 or not found:
        raise UnavailableError("pip cannot be had as a wheel", fix="connect this machine to a package index")
    return Upload(found[-1], sha256_of(found[-1]), found[-1].stat().st_size)
