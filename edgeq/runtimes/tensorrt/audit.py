"""Which layers really run in INT8 on this device: the engine inspector's word. Device side.

The engine is the one that a session runs (same cache), built with DETAILED profiling verbosity. The nodes
that are looked for come from TensorRT's own parser, since a board has no onnx package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import AuditReport, SessionOptions
from edgeq.runtimes.tensorrt.cache import Device
from edgeq.runtimes.tensorrt.cuda import load_cuda
from edgeq.runtimes.tensorrt.engine import import_tensorrt, load_engine, new_network
from edgeq.runtimes.tensorrt.layers import EngineLayer, Wanted, audit_layers, layers_from_json
from edgeq.runtimes.tensorrt.trtexec import find_trtexec
from edgeq.runtimes.tensorrt.trtexec_session import TrtexecSession

__all__ = ["audit"]

_COMPUTE = {
    "CONVOLUTION": "Conv",
    "DECONVOLUTION": "ConvTranspose",
    "MATRIX_MULTIPLY": "MatMul",
}
"""``tensorrt.LayerType`` -> the ONNX op that it came from; a Gemm is a MatMul to TensorRT."""


def audit(
    artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
) -> AuditReport:
    """Layers of the engine that runs here.

    Args:
        artifact: QDQ or float ONNX.
        options: as it will be run.
        reasons: node name -> why the plan keeps it in float.

    Raises:
        ModelError: TensorRT refuses the model.
        UnavailableError: TensorRT or the GPU is not here.
    """
    try:
        trt = import_tensorrt()
    except UnavailableError:
        program = find_trtexec()
        if program is None:
            raise
        return _by_trtexec(program, artifact, options, reasons or {})
    cuda = load_cuda()
    device = Device(cuda.device_name(), cuda.compute_capability())
    engine, _ = load_engine(trt, artifact, options, device)
    inspector = engine.create_engine_inspector()
    layers = _layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    details = {
        "version": str(trt.__version__),
        "device": device.name,
        "compute_capability": device.compute_capability,
    }
    wanted = _wanted(trt, artifact)
    return AuditReport("tensorrt", audit_layers(layers, wanted, reasons or {}), details)


def _by_trtexec(
    program: str, artifact: Path, options: SessionOptions, reasons: Mapping[str, str]
) -> AuditReport:
    """Without the module there is no parser: convolutions are told by the types of the engine's layers."""
    session = TrtexecSession(program, artifact, options)
    layers = _layers(session.layer_info)
    compute = ("conv", "correlation", "gemm", "matmul", "deconv")
    wanted = [
        Wanted(layer.nodes[0], "Conv" if "gemm" not in layer.kind.lower() else "MatMul", "")
        for layer in layers
        if layer.nodes and any(word in layer.kind.lower() for word in compute)
    ]
    unique = {entry.name: entry for entry in wanted}
    details = {key: session.details[key] for key in ("version", "by", "device", "compute_capability")}
    return AuditReport("tensorrt", audit_layers(layers, unique.values(), reasons), details)


def _layers(text: str) -> tuple[EngineLayer, ...]:
    try:
        return layers_from_json(text)
    except ValueError as error:
        raise ModelError(f"the engine inspector's answer cannot be read: {error}") from error


def _wanted(trt: Any, artifact: Path) -> list[Wanted]:
    """Convolutions and matrix products as TensorRT's parser sees them, by the names of their ONNX nodes."""
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network, parser = new_network(trt, builder, artifact.read_bytes(), artifact.name)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    found = [
        Wanted(str(layer.name), _COMPUTE[kind], "")
        for layer in layers
        if (kind := str(layer.type).rsplit(".", 1)[-1]) in _COMPUTE
    ]
    del parser
    return found
