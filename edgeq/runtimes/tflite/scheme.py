"""What XNNPACK's INT8 kernels accept, and what TFLite's own kernels demand.

Source: ``tflite/delegates/xnnpack/xnnpack_delegate.cc`` (which int8 ops it takes: no RELU, HARD_SWISH,
SOFTMAX or AVERAGE_POOL_2D) and the Prepare functions of ``tflite/kernels`` (LOGISTIC writes to scale
1/256, zero point -128; moving ops keep their grid) of google-ai-edge/LiteRT.
"""

from __future__ import annotations

from edgeq.quantize.grid import Affine
from edgeq.quantize.scheme import Placement, Scheme
from edgeq.runtimes.tflite.integer import LOGISTIC_GRID, LOGISTIC_GRID_16
from edgeq.types import IntegerType

__all__ = ["scheme"]

_SHARED = frozenset(
    {
        *("DepthToSpace", "Flatten", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    }
)
_COMPUTED = frozenset(
    {
        *(
            "Add",
            "AveragePool",
            "Clip",
            "Concat",
            "Conv",
            "ConvTranspose",
            "Gemm",
            "GlobalAveragePool",
            "LeakyRelu",
            "MatMul",
        ),
        *("Mul", "Relu", "Sigmoid", "Sub"),
    }
)


def scheme(activation_dtype: IntegerType) -> Scheme:
    """INT8 in TFLite.

    Args:
        activation_dtype: int8 with a free zero point; int16, which is symmetric, for the reference
            kernels that multiply 16-bit activations with 8-bit weights.
    """
    wide = activation_dtype is IntegerType.INT16
    scale, zero = LOGISTIC_GRID_16 if wide else LOGISTIC_GRID
    return Scheme(
        runtime="tflite",
        activation_dtype=activation_dtype,
        symmetric_activations=wide,
        placement=Placement.EVERY_TENSOR,
        integer_ops=_COMPUTED | _SHARED,
        shared_scale_ops=_SHARED,
        joining_ops=frozenset({"Concat"}),
        fused_activations=frozenset({"Relu", "Clip"}),
        split_heads=True,
        least_equalized_spread=100.0,
        points_per_float_share=4.0,
        stored_weight_ops=frozenset({"Gemm", "MatMul"}),
        fixed_outputs={"Sigmoid": Affine(scale, zero, activation_dtype)},
    )
