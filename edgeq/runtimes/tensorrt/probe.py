"""Is TensorRT here, with which GPU and how many DLA cores; and if not, what stands in for it? Device side."""

from __future__ import annotations

import importlib.util
import platform

from edgeq.errors import EdgeqError, UnavailableError
from edgeq.runtimes.base import ProbeReport
from edgeq.runtimes.tensorrt.cuda import load_cuda
from edgeq.runtimes.tensorrt.engine import import_tensorrt
from edgeq.runtimes.tensorrt.trtexec import find_trtexec

__all__ = ["probe"]

_CHECK = "tensorrt_rtx_bindings"


def probe() -> ProbeReport:
    """Version, device and what is missing."""
    features = {"architecture": platform.machine().lower()}
    problems: list[str] = []
    version: str | None = None
    try:
        trt = import_tensorrt()
        version = str(trt.__version__)
        features["dla-cores"] = str(trt.Builder(trt.Logger(trt.Logger.ERROR)).num_DLA_cores)
    except UnavailableError as error:
        program = find_trtexec()
        if program is not None:
            features["trtexec"] = program
            problems.append(f"{error.message}: only trtexec is here, which audits but measures no latency")
    if version is not None:
        try:
            cuda = load_cuda()
            features |= {"gpu": cuda.device_name(), "compute-capability": cuda.compute_capability()}
        except EdgeqError as error:
            problems.append(f"{error.message}: {error.fix}")
    conforms = importlib.util.find_spec(_CHECK) is not None
    features["conformance-check"] = "yes" if conforms else 'no: pip install "edgeq[tensorrt-check]"'
    if version is None and not problems:
        features["accuracy"] = "simulated in ONNX Runtime"
    return ProbeReport("tensorrt", version, features, tuple(problems))
