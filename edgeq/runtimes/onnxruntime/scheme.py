"""What ONNX Runtime's CPU kernels accept.

Source: ``onnxruntime/core/optimizer/qdq_transformer/selectors_actions`` (which DQ-op-Q groups become
one integer kernel) and ``contrib_ops/cpu/quantization`` of microsoft/onnxruntime. QLinearSigmoid is a
table look-up; its output grid 1/256 covers 0..1 exactly.
"""

from __future__ import annotations

from edgeq.quantize.grid import Affine
from edgeq.quantize.scheme import Placement, Scheme
from edgeq.types import IntegerType

__all__ = ["scheme"]

_SHARED = frozenset(
    {"Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
_COMPUTED = frozenset(
    {
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Conv",
        "Gemm",
        "GlobalAveragePool",
        "LeakyRelu",
        "MatMul",
        "Mul",
        "Relu",
        "Sigmoid",
    }
)


def scheme(activation_dtype: IntegerType, *, weight_bits: int = 8) -> Scheme:
    """INT8 in ONNX Runtime.

    Args:
        activation_dtype: uint8 on x86, where signed activations run at half the speed; int8 also does
            on ARM.
        weight_bits: 8, or 7 for x86 without VNNI.
    """
    low, _ = activation_dtype.limits
    return Scheme(
        runtime="onnxruntime",
        activation_dtype=activation_dtype,
        symmetric_activations=False,
        placement=Placement.EVERY_TENSOR,
        integer_ops=_COMPUTED | _SHARED,
        shared_scale_ops=_SHARED,
        # QLinearConcat takes inputs on any grids, but copies those that are on its output's.
        joining_ops=frozenset({"Concat"}),
        # The transformers ReluQuantFusion and ClipQuantFusion drop them in front of a QuantizeLinear.
        fused_activations=frozenset({"Relu", "Clip"}),
        # QGemm without an output scale; there is no such convolution.
        float_output_ops=frozenset({"Gemm"}),
        fixed_outputs={"Sigmoid": Affine(1 / 256, low, activation_dtype)},
        weight_bits=weight_bits,
    )
