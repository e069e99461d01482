"""Is OpenVINO here, and has the machine what makes its INT8 fast and exact?"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path

from edgeq.errors import UnavailableError
from edgeq.machine import core_count, cpu_features
from edgeq.runtimes.base import ProbeReport
from edgeq.runtimes.openvino.session import import_openvino

__all__ = ["default_float", "probe", "wheel_glibc"]

_GLIBC = re.compile(r"manylinux_(\d+)_(\d+)_")


def probe(cpuinfo: Path = Path("/proc/cpuinfo")) -> ProbeReport:
    """Version, devices, instructions and problems.

    Args:
        cpuinfo: the kernel's file; another one in tests.
    """
    features = {**cpu_features(cpuinfo), "threads": str(core_count())}
    features["default_float"] = default_float(cpuinfo)
    problems = _cpu_problems(features)
    needed, here = wheel_glibc(), platform.libc_ver()
    if here[0] == "glibc":
        features["glibc"] = here[1]
    version: str | None = None
    try:
        ov = import_openvino()
        version = str(ov.__version__)
        features |= _devices(ov)
        if "CPU" not in features["devices"].split(", "):
            problems.append("this OpenVINO finds no CPU plugin: pip install --force-reinstall openvino")
    except UnavailableError as error:
        problems.insert(0, f"{error.message}: {error.fix}")
        if needed is not None and here[0] == "glibc" and _numbers(here[1]) < needed:
            wanted = ".".join(map(str, needed))
            problems.append(f"the installed wheel needs glibc {wanted} or newer, this system has {here[1]}")
    return ProbeReport("openvino", version, features, tuple(problems))


def default_float(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Precision in which OpenVINO's CPU plugin runs a float model here when nothing is forced.

    bfloat16 where AVX-512 or AMX has it, float16 on ARM with half precision arithmetic. Source:
    docs.openvino.ai, CPU device, "Floating-point data types specifics".
    """
    features = cpu_features(cpuinfo)
    if "yes" in (features.get("avx512-bf16"), features.get("amx-bf16")):
        return "bfloat16"
    return "float16" if features.get("fp16") == "yes" else "float32"


def wheel_glibc() -> tuple[int, ...] | None:
    """The glibc that the installed wheel was built for; None: not installed, or it does not say."""
    try:
        text = importlib.metadata.distribution("openvino").read_text("WHEEL") or ""
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [tuple(map(int, pair)) for pair in _GLIBC.findall(text)]
    return min(found, default=None)


def _devices(ov: object) -> dict[str, str]:
    """Names of OpenVINO's devices, and each one's full name."""
    core = ov.Core()  # type: ignore[attr-defined]
    names = [str(name) for name in core.available_devices]
    found = {"devices": ", ".join(names)}
    for name in names:
        try:
            found[f"device {name}"] = str(core.get_property(name, "FULL_DEVICE_NAME")).strip()
        except RuntimeError:
            found[f"device {name}"] = "found, but does not answer: check its driver"
    return found


def _cpu_problems(features: dict[str, str]) -> list[str]:
    if features.get("vnni") == "no":
        return [
            "no VNNI: uint8 x int8 products are added in pairs in 16 bits and clamped where they do not fit, "
            "which changes results; quantise for the target x86-avx2, whose weights have 7 bits"
        ]
    if features.get("dot-product") == "no":
        return ["no dot-product instructions (asimddp): INT8 gains little over float on this CPU"]
    return []


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
