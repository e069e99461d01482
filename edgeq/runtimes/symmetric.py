"""INT8 as accelerators that know no zero point take it: TensorRT's explicit quantisation, Core ML's W8A8.

Symmetric int8 for everything, one scale per tensor for activations. A layer takes its input and its weight
through a pair and gives float inside its fusion (bias, activation, residual add); the next layer's pair
rounds that once, for all readers. The bias stays float.
"""

from __future__ import annotations

from edgeq.quantize.scheme import Placement, Scheme
from edgeq.types import COMPUTE_OPS, IntegerType

__all__ = ["symmetric_scheme"]

_FUSED = frozenset(
    {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid"}
)
"""Computed in float behind the layer before; what leaves it is rounded once."""


def symmetric_scheme(runtime: str) -> Scheme:
    """What such runtimes have in common; each replaces what is its own.

    Ops that move or join values (Concat, MaxPool, Resize, ...) need no pair of their own.
    """
    return Scheme(
        runtime=runtime,
        activation_dtype=IntegerType.INT8,
        symmetric_activations=True,
        placement=Placement.COMPUTE_INPUTS,
        integer_ops=COMPUTE_OPS | _FUSED | {"Add"},
        shared_scale_ops=frozenset(),
        # A residual add is part of the layer before it: a pair between them would stop that.
        fused_activations=frozenset({"Add"}),
        # INT8 in, float out: a prediction layer rounds its input and its weight, but no score.
        float_output_ops=COMPUTE_OPS,
        # YOLOv5n lost 0.9 points less with its three in float (simulated, 204 images).
        few_float_heads=6,
        quantize_bias=False,
        equalize_depthwise=True,
        max_float_layers=3,
    )
