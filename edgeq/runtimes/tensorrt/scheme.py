"""What TensorRT's INT8 kernels accept, as explicit quantisation in a strongly typed network.

Sources: NVIDIA TensorRT documentation, "Working with Quantized Types" and "Explicit Quantization"
(TensorRT 10 and 11); ``QuantDequantLinearHelper`` of onnx/onnx-tensorrt (what its parser refuses); and
builds with TensorRT-RTX 1.7, whose engines list each layer's data types
(`edgeq.runtimes.tensorrt.conformance`).

Symmetric int8 for everything. A convolution takes its input and weight through a pair and gives float
inside its fusion (bias, SiLU, residual add); the next layer's pair rounds that once. The bias stays
float: an int32 bias behind DequantizeLinear is a parse error.
"""

from __future__ import annotations

from edgeq.quantize.scheme import Placement, Scheme
from edgeq.types import IntegerType

__all__ = ["scheme"]

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FUSED = frozenset(
    {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid"}
)
"""Computed in float inside the kernel of the layer before; what leaves it is rounded once for all readers."""


def scheme() -> Scheme:
    """INT8 in TensorRT 10 and 11; the same on every GPU with INT8 tensor cores.

    Ops that move or join values (Concat, MaxPool, Resize, ...) need no pair of their own: TensorRT moves a
    QuantizeLinear to in front of them.
    """
    return Scheme(
        runtime="tensorrt",
        activation_dtype=IntegerType.INT8,
        symmetric_activations=True,
        placement=Placement.COMPUTE_INPUTS,
        integer_ops=_LAYERS | _FUSED | {"Add"},
        shared_scale_ops=frozenset(),
        # A residual add is part of the convolution's kernel: a pair between them would stop that.
        fused_activations=frozenset({"Add"}),
        # INT8 in, float out: a prediction layer rounds its input and its weight, but no score.
        float_output_ops=_LAYERS,
        # YOLOv5n lost 0.9 points less with its three in float (simulated, 204 images).
        few_float_heads=6,
        quantize_bias=False,
        equalize_depthwise=True,
        max_float_layers=3,
    )
