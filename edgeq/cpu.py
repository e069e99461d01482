"""What the kernel says the CPU can do; standard library only, for the device side."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["ARM", "X86", "cpu_flags", "cpu_kind"]

X86 = "x86"
ARM = "arm"
_KINDS = {"x86_64": X86, "amd64": X86, "i686": X86, "aarch64": ARM, "arm64": ARM}


def cpu_kind() -> str | None:
    """``x86`` or ``arm``; None for any other."""
    return _KINDS.get(platform.machine().lower())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction set flags of the first core; empty where the system has no such file."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return frozenset(value.split())
    return frozenset()
