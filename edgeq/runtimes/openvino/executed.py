"""What OpenVINO executed: the layers of the compiled graph with their precision, kernel and time."""

from __future__ import annotations

import re
from statistics import median
from typing import Any

import numpy.typing as npt

from edgeq.runtimes.base import LayerTime

__all__ = ["COMPUTE", "layer_times", "source_name"]

COMPUTE = {
    "Convolution": "Conv",
    "Deconvolution": "ConvTranspose",
    "FullyConnected": "Gemm",
    "MatMul": "MatMul",
}
"""Executed layer type of a convolution or matrix product -> its ONNX op."""
_NOT_EXECUTED = frozenset({"Const", "Input", "Output"})
_DECORATION = re.compile(r"/(WithoutBiases|fq_\w+|FusedAdd)$")


def layer_times(compiled: Any, tensor: npt.NDArray[Any], *, runs: int) -> tuple[LayerTime, ...]:
    """Each executed layer in order, with the median time of some inferences.

    Args:
        compiled: an ``openvino.CompiledModel`` with ``PERF_COUNT``.
        tensor: input.
        runs: inferences that count; 1 or more; one before them does not.

    Raises:
        RuntimeError: OpenVINO's, where an inference fails.
    """
    request = compiled.create_infer_request()
    times_ms: dict[str, list[float]] = {}
    for run in range(runs + 1):
        request.infer([tensor])
        for entry in request.profiling_info if run else ():
            times_ms.setdefault(entry.node_name, []).append(entry.real_time.total_seconds() * 1e3)
    layers = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: _text(value) for key, value in node.get_rt_info().items()}
        kind = info.get("layerType", node.get_type_name())
        if kind in _NOT_EXECUTED or info.get("execTimeMcs") == "not_executed":
            continue
        name = node.get_friendly_name()
        layers.append(
            LayerTime(
                name=source_name(name),
                op=COMPUTE.get(kind, kind),
                precision=info.get("runtimePrecision", ""),
                kernel=info.get("primitiveType", ""),
                time_ms=median(times_ms.get(name, [0.0])),
            )
        )
    return tuple(layers)


def source_name(name: str) -> str:
    """The source node's name without what OpenVINO's passes added to it."""
    return _DECORATION.sub("", name)


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
