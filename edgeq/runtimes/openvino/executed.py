"""What OpenVINO executed: the layers of the compiled graph with their precision, kernel and time."""

from __future__ import annotations

import re
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
    """Each executed layer in order, with the mean time of some inferences.

    Args:
        compiled: an ``openvino.CompiledModel`` with ``PERF_COUNT``.
        tensor: input.
        runs: inferences that count; one before them does not. 0: none at all, and all times are 0.

    Raises:
        RuntimeError: OpenVINO's, where an inference fails.
    """
    request = compiled.create_infer_request()
    sums_us: dict[str, float] = {}
    for run in range(runs + 1 if runs else 0):
        request.infer([tensor])
        for entry in request.profiling_info if run else ():
            sums_us[entry.node_name] = (
                sums_us.get(entry.node_name, 0.0) + entry.real_time.total_seconds() * 1e6
            )
    layers = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: _text(value) for key, value in node.get_rt_info().items()}
        kind = info.get("layerType", node.get_type_name())
        if kind in _NOT_EXECUTED:
            continue
        name = node.get_friendly_name()
        layers.append(
            LayerTime(
                name=source_name(name),
                op=COMPUTE.get(kind, kind),
                precision=info.get("runtimePrecision", ""),
                kernel=info.get("primitiveType", ""),
                time_ms=sums_us.get(name, 0.0) / max(runs, 1) / 1e3,
            )
        )
    return tuple(layers)


def source_name(name: str) -> str:
    """The source node's name without what OpenVINO's passes added to it."""
    return _DECORATION.sub("", name)


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
