"""Is ONNX Runtime here, and has the CPU the instructions that make its INT8 fast and exact?"""

from __future__ import annotations

from pathlib import Path

from edgeq.errors import UnavailableError
from edgeq.machine import core_count, cpu_features
from edgeq.runtimes.base import ProbeReport
from edgeq.runtimes.onnxruntime.native import PROVIDER, import_onnxruntime

__all__ = ["probe"]


def probe(cpuinfo: Path = Path("/proc/cpuinfo")) -> ProbeReport:
    """Version, instructions and problems.

    Args:
        cpuinfo: the kernel's file; another one in tests.
    """
    features = {**cpu_features(cpuinfo), "threads": str(core_count())}
    problems = _cpu_problems(features)
    version: str | None = None
    try:
        ort = import_onnxruntime()
        version = str(ort.__version__)
        features["providers"] = ", ".join(ort.get_available_providers())
        if PROVIDER not in ort.get_available_providers():
            problems.append(f"this build of ONNX Runtime has no {PROVIDER}: pip install onnxruntime")
    except UnavailableError as error:
        problems.insert(0, f"{error.message}: {error.fix}")
    return ProbeReport("onnxruntime", version, features, tuple(problems))


def _cpu_problems(features: dict[str, str]) -> list[str]:
    if features.get("vnni") == "no":
        return [
            "no VNNI: uint8 x int8 products are added in pairs in 16 bits and clamped where they do not fit, "
            "which changes results, and INT8 gains little speed; compare accuracy on the target itself"
        ]
    if features.get("dot-product") == "no":
        return ["no dot-product instructions (asimddp): INT8 gains little over float on this CPU"]
    return []
