"""Is coremltools here, and can this machine run what it builds?"""

from __future__ import annotations

import platform
from importlib import metadata

from edgeq.runtimes.base import ProbeReport
from edgeq.runtimes.coreml.native import predicts_here

__all__ = ["probe"]

_LEAST_MACOS = 14
"""Of mlprograms for iOS 17."""


def probe() -> ProbeReport:
    """Version, system and problems; never raises, and imports nothing of Apple's."""
    features = {"architecture": platform.machine().lower(), "builds_packages": "yes"}
    problems = []
    try:
        version: str | None = metadata.version("coremltools")
    except metadata.PackageNotFoundError:
        version, features["builds_packages"] = None, "no"
        problems.append('coremltools is not installed: pip install "edgeq[coreml]"')
    features["runs_packages"] = "yes" if predicts_here() else "no"
    if not predicts_here():
        features["accuracy"] = "simulated in ONNX Runtime"
    else:
        macos = platform.mac_ver()[0]
        features["macos"] = macos or "unknown"
        major = macos.partition(".")[0]
        if major.isdigit() and int(major) < _LEAST_MACOS:
            features["runs_packages"] = "no"
            problems.append(f"macOS {macos} is too old for these packages: {_LEAST_MACOS} or later is needed")
    return ProbeReport("coreml", version, features, tuple(problems))
