"""Is TensorRT here, with which GPU and how many DLA cores; and if not, what stands in for it? Device side."""

from __future__ import annotations

import importlib.util
import platform

from edgeq.errors import EdgeqError, UnavailableError
from edgeq.runtimes.base import ProbeReport
from edgeq.runtimes.tensorrt.cache import Device
from edgeq.runtimes.tensorrt.cuda import load_cuda
from edgeq.runtimes.tensorrt.engine import import_tensorrt
from edgeq.runtimes.tensorrt.trtexec import BETTER, find_trtexec, look

__all__ = ["probe"]

_CHECK = "tensorrt_rtx_bindings"
_SLOW = (
    "TensorRT's Python module is missing, trtexec stands in: every image starts a process, so evaluating is "
    f"slow: {BETTER}"
)


def probe() -> ProbeReport:
    """Version, device and what is missing."""
    features = {"architecture": platform.machine().lower()}
    problems: list[str] = []
    version: str | None = None
    device: Device | None = None
    try:
        trt = import_tensorrt()
        version = str(trt.__version__)
        features["dla-cores"] = str(trt.Builder(trt.Logger(trt.Logger.ERROR)).num_DLA_cores)
        cuda = load_cuda()
        device = Device(cuda.device_name(), cuda.compute_capability())
    except EdgeqError as error:
        program = find_trtexec()
        if version is not None:
            problems.append(f"{error.message}: {error.fix}")
        elif program is not None:
            version, device, problems = _by_trtexec(program)
            features["trtexec"] = program
    if device is not None:
        features |= {"gpu": device.name, "compute-capability": device.compute_capability}
    conforms = importlib.util.find_spec(_CHECK) is not None
    features["conformance-check"] = "yes" if conforms else 'no: pip install "edgeq[tensorrt-check]"'
    if version is None and not problems:
        features["accuracy"] = "simulated in ONNX Runtime"
    return ProbeReport("tensorrt", version, features, tuple(problems))


def _by_trtexec(program: str) -> tuple[str | None, Device | None, list[str]]:
    """Version, device and problems."""
    try:
        found = look(program)
    except UnavailableError as error:
        return None, None, [str(error)]
    problems = [_SLOW] if found.device is not None else [f"{program} finds no NVIDIA GPU"]
    return found.version, found.device, problems
