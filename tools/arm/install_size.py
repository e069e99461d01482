"""What ``pip install "edgeq[tflite]"`` takes on a clean aarch64 system, from the wheels in the cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import UnavailableError
from tools.arm import wheels
from tools.arm.cache import Environment
from tools.arm.user_mode import PYTHON, run_on_arm

_ROOT = Path(__file__).resolve().parents[2]
# In one process, since a user-mode program cannot start others: pip straight out of the wheel that Debian's
# venv module keeps, as `python3 -m venv` would install it.
_INSTALL = """
import glob, os, runpy, sys
(pip,) = glob.glob("/usr/share/python-wheels/pip-*.whl")
sys.path.insert(0, pip)
sys.argv = ["pip", "install", "--no-index", "--find-links", "wheels", "--no-compile", "--no-cache-dir",
            "--target", "site", "--progress-bar", "off", *sys.argv[1:]]
runpy.run_module("pip", run_name="__main__")
"""


@dataclass(frozen=True)
class InstallSize:
    """An installation on a clean system."""

    installed_mb: float
    """All files, 10^6 bytes, without compiled bytecode."""
    downloaded_mb: float
    """The wheels, 10^6 bytes."""
    packages: Mapping[str, float]
    """Installed size of each package in 10^6 bytes, from the files that its record lists."""


def install_size(environment: Environment, *, requirement: str = "edgeq[tflite]") -> InstallSize:
    """Install `requirement` by the aarch64 system's own pip and measure what it put there.

    Raises:
        ArmProgramError: pip failed; a wheel is missing or does not fit.
        UnavailableError: edgeq's own wheel cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-arm-install-") as name:
        folder = Path(name)
        (folder / "wheels").mkdir()
        _build(folder / "wheels")
        for wheel in environment.wheels.glob("*.whl"):
            (folder / "wheels" / wheel.name).hardlink_to(wheel)
        (folder / "install.py").write_text(_INSTALL, encoding="utf-8")
        run_on_arm([PYTHON, "-E", "install.py", requirement], folder=folder, timeout_s=1500)
        packages = _packages(folder / "site")
        chosen = {path for path in (folder / "wheels").iterdir() if _name(path) in packages}
        installed = sum(path.stat().st_size for path in (folder / "site").rglob("*") if path.is_file())
        downloaded = sum(path.stat().st_size for path in chosen)
    return InstallSize(round(installed / 1e6, 1), round(downloaded / 1e6, 1), packages)


def _build(folder: Path) -> None:
    words = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(_ROOT)]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise UnavailableError(
            f"edgeq's wheel cannot be built:\n{done.stderr[-500:]}", fix="the package index must be reachable"
        )


def _name(wheel: Path) -> str:
    return next(iter(wheels.versions_of([wheel])))


def _packages(site: Path) -> dict[str, float]:
    """Size by name of every package in a folder that pip installed into."""
    sizes = {}
    for record in sorted(site.glob("*.dist-info/RECORD")):
        name = record.parent.name.split("-")[0].lower().replace("_", "-")
        files = [site / line.split(",")[0].strip('"') for line in record.read_text("utf-8").splitlines()]
        sizes[name] = round(sum(path.stat().st_size for path in files if path.is_file()) / 1e6, 1)
    return sizes
