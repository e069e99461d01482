"""What TensorRT's INT8 kernels accept, as explicit quantisation in a strongly typed network.

Sources: NVIDIA TensorRT documentation, "Working with Quantized Types" and "Explicit Quantization"
(TensorRT 10 and 11); ``QuantDequantLinearHelper`` of onnx/onnx-tensorrt (what its parser refuses); and
builds with TensorRT-RTX 1.7, whose engines list each layer's data types
(`edgeq.runtimes.tensorrt.conformance`).

An int32 bias behind DequantizeLinear is a parse error; ops that move or join values need no pair, since
TensorRT moves a QuantizeLinear to in front of them.
"""

from __future__ import annotations

from edgeq.quantize.scheme import Scheme
from edgeq.runtimes.symmetric import symmetric_scheme

__all__ = ["scheme"]


def scheme() -> Scheme:
    """INT8 in TensorRT 10 and 11; the same on every GPU with INT8 tensor cores."""
    return symmetric_scheme("tensorrt")
