"""What stands beside every number: the machine and the versions. Device side: the standard library only."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from edgeq import __version__

__all__ = [
    "core_count",
    "cpu_features",
    "cpu_flags",
    "cpu_model",
    "installed_version",
    "machine_facts",
    "tool_versions",
]

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "opencv-python-headless", "openvino")
_CPUINFO = Path("/proc/cpuinfo")
_X86 = ("x86_64", "amd64", "i686")
_ARM = ("aarch64", "arm64")
_FEATURES: dict[str, dict[str, tuple[str, ...]]] = {
    "x86": {
        "avx2": ("avx2",),
        "avx512": ("avx512f",),
        "vnni": ("avx512_vnni", "avx_vnni"),
        "avx512-bf16": ("avx512_bf16",),
        "amx-int8": ("amx_int8",),
        "amx-bf16": ("amx_bf16",),
    },
    "arm": {"dot-product": ("asimddp",), "i8mm": ("i8mm",), "fp16": ("asimdhp",), "sve": ("sve",)},
}
"""Name in the report -> flags of /proc/cpuinfo, one of which is enough."""


def machine_facts() -> dict[str, object]:
    """CPU, cores and system."""
    return {
        "architecture": platform.machine(),
        "cpu": cpu_model(),
        "cores": core_count(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": tool_versions(),
    }


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """The CPU's name; on a board the board's, where that is all there is."""
    return _first(cpuinfo, "model name", "Model") or platform.processor() or "unknown"


def cpu_features(cpuinfo: Path = _CPUINFO) -> dict[str, str]:
    """``architecture``, and ``yes`` or ``no`` for each instruction set that matters on it.

    Args:
        cpuinfo: the kernel's file; another one in tests.
    """
    flags = cpu_flags(cpuinfo)
    machine = platform.machine().lower()
    kind = "x86" if machine in _X86 else "arm" if machine in _ARM else ""
    known = _FEATURES.get(kind, {}) if flags else {}
    found = {name: "yes" if flags & set(any_of) else "no" for name, any_of in known.items()}
    return {"architecture": machine, **found}


def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Instruction set flags of the first core; empty where the system has no such file."""
    return frozenset(_first(cpuinfo, "flags", "Features").split())


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


def _first(cpuinfo: Path, *keys: str) -> str:
    """Value of the first of these keys that the file has; empty: it has none, or is not there."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    found = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    return next((value for wanted in keys for key, value in found if key == wanted), "")
