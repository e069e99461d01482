"""Is TFLite here, and has the CPU the instructions that make its INT8 fast?"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgeq.errors import UnavailableError
from edgeq.machine import core_count, cpu_features
from edgeq.runtimes.base import ProbeReport
from edgeq.runtimes.tflite.native import import_wheel

__all__ = ["probe"]

_GLIBC = (2, 27)
"""ai-edge-litert's wheels are built for manylinux_2_27."""


def probe(cpuinfo: Path = Path("/proc/cpuinfo")) -> ProbeReport:
    """Version, wheel, instructions and problems; never raises.

    Args:
        cpuinfo: the kernel's file; another one in tests.
    """
    features = {"threads": str(core_count()), **cpu_features(cpuinfo)}
    problems = _cpu_problems(features)
    libc = _glibc()
    if libc is not None:
        features["glibc"] = ".".join(map(str, libc))
    version: str | None = None
    try:
        wheel = import_wheel()
    except UnavailableError as error:
        problems.insert(0, f"{error.message}: {error.fix}")
        if libc is not None and libc < _GLIBC:
            problems.insert(
                1,
                f"glibc {features['glibc']} is too old for ai-edge-litert (2.27): use a newer system",
            )
    else:
        version = wheel.version
        features["package"] = wheel.package
        if wheel.package == "tflite-runtime":
            problems.append(
                "tflite-runtime is no longer maintained, and its XNNPACK takes no INT8 operators on x86-64: "
                "pip install ai-edge-litert, where Python is 3.10 or newer"
            )
    return ProbeReport("tflite", version, features, tuple(problems))


def _glibc() -> tuple[int, int] | None:
    """Version of the C library; None: another one (musl), or another system."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (AttributeError, ValueError, OSError):
        return None


def _cpu_problems(features: dict[str, str]) -> list[str]:
    if features.get("dot-product") == "no":
        return [
            "no dot-product instructions (asimddp): INT8 needs 0.70 of float's instructions on such a CPU, "
            "0.39 with them (YOLOX-Nano); see what it gains with 'edgeq bench'"
        ]
    if features.get("vnni") == "no":
        return ["no VNNI: INT8 gains less speed on this CPU; results are the same as on ARM"]
    if platform.machine().lower() in ("armv7l", "armv6l"):
        return ["a 32-bit system: ai-edge-litert has 64-bit wheels only; install a 64-bit system"]
    return []
