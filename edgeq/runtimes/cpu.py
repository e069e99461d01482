"""Instructions of this machine's CPU that decide how fast INT8 is."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["cpu_features", "cpu_flags"]

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


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
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
