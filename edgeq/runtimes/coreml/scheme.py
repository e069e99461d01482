"""INT8 as Core ML's W8A8 form has it, for the Neural Engine's INT8 units (A17 Pro, M4 and later).

Sources: Apple's guide "Optimizing Models: Quantization" (pages overview and performance) and coremltools 9,
``optimize/coreml/_config.py`` and ``_quantization_passes.py``: Apple's own quantiser puts symmetric int8
pairs with one scale per tensor on the inputs of convolutions, linear layers and adds, and knows no
activation with a zero point or with a scale per channel. The ``quantize`` operation itself takes both, but
whether the Neural Engine then still multiplies integers is said nowhere and cannot be measured here, so
this scheme keeps to Apple's form.

A convolution takes input and weight through a pair and gives float inside its fusion; the bias is float. A
layer that stays float reads float values and has INT8 weights (Apple's W8 form), restored at load.
"""

from __future__ import annotations

from edgeq.quantize.scheme import Placement, Scheme
from edgeq.types import IntegerType

__all__ = ["scheme"]

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FUSED = frozenset(
    {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid"}
)
"""Computed in float16 behind the layer before; what leaves it is rounded once for all readers."""


def scheme() -> Scheme:
    """INT8 for mlprograms of iOS 17 and macOS 14 or later."""
    return Scheme(
        runtime="coreml",
        activation_dtype=IntegerType.INT8,
        symmetric_activations=True,
        placement=Placement.COMPUTE_INPUTS,
        integer_ops=_LAYERS | _FUSED | {"Add"},
        shared_scale_ops=frozenset(),
        fused_activations=frozenset({"Add"}),
        # Float out: a prediction layer rounds its input and its weight, but no score.
        float_output_ops=_LAYERS,
        few_float_heads=6,
        # A classifier's last layer in INT8 cost nothing (EfficientNet-Lite0: 0.5 points either way, simulated
        # on 186 images) and is a quarter of its package in float16.
        few_float_head_ops=frozenset({"Conv"}),
        quantize_bias=False,
        half_scales=True,
        # A float layer's weights would be the better part of what is not a quarter of float32.
        int8_weights_of_float_layers=True,
        equalize_depthwise=True,
        max_float_layers=3,
    )
