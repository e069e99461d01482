"""What stands beside every number: the machine and the versions."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from edgeq import __version__
from edgeq.cores import core_count

__all__ = ["cpu_model", "installed_version", "machine_facts", "tool_versions"]

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "opencv-python-headless", "openvino")


def machine_facts() -> dict[str, object]:
    """CPU, cores and system."""
    return {
        "architecture": platform.machine(),
        "cpu": cpu_model(),
        "cores": core_count(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": tool_versions(),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name; on a board the board's, where that is all there is."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Model"):
        for line in lines:
            if line.partition(":")[0].strip() == key:
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def tool_versions() -> dict[str, str]:
    """Versions of edgeq, Python and the packages that compute."""
    found = {name: version for name in _PACKAGES if (version := installed_version(name)) is not None}
    return {"edgeq": __version__, "python": platform.python_version(), **found}


def installed_version(package: str) -> str | None:
    """Version of an installed distribution; None: not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
