"""What OpenVINO's CPU and GPU kernels accept.

Sources: ``common/low_precision_transformations`` of openvinotoolkit/openvino (which ops carry a
dequantisation on and which end it), and where NNCF puts its FakeQuantize ops on the same models.

A convolution reads uint8 and int8 and gives float inside its fusion (bias, SiLU, residual add); its
kernel rounds to the grid of the next layer's input itself, so there is one pair on each tensor between
layers, shared by all readers, and none between a convolution and its activation. Both inputs of a residual
add are rounded, that straight from a convolution too: with it in float the add was a kernel of its own.
Pools, resizes and splits pass integers on; the inputs of a concatenation share one grid, else it would have
to be computed in float.
"""

from __future__ import annotations

from edgeq.quantize.graph import ACTIVATION_OPS
from edgeq.quantize.scheme import Placement, Scheme
from edgeq.types import COMPUTE_OPS, IntegerType

__all__ = ["scheme"]

_MOVES = frozenset(
    {"Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
_JOINS = frozenset({"Concat"})


def scheme(*, weight_bits: int = 8) -> Scheme:
    """INT8 in OpenVINO.

    Args:
        weight_bits: 8, or 7 for x86 without VNNI.
    """
    return Scheme(
        runtime="openvino",
        activation_dtype=IntegerType.UINT8,
        symmetric_activations=False,
        placement=Placement.COMPUTE_INPUTS,
        integer_ops=COMPUTE_OPS
        | _MOVES
        | _JOINS
        | ACTIVATION_OPS
        | {"Add", "AveragePool", "GlobalAveragePool"},
        shared_scale_ops=_MOVES,
        one_grid_ops=_JOINS,
        quantize_bias=False,
        # A prediction layer's output is float anyway: only its input and its weight are rounded.
        float_output_ops=COMPUTE_OPS,
        # Where one layer a level gives boxes and scores at once (YOLOv5), its input's grid has to serve
        # both: wide for the confident scores, fine for the boxes. The coarse level, which costs least and
        # has the large objects, in float took the drift of YOLOv5n's detections from 0.116 to 0.102 (all
        # three levels: 0.090) for 2.4 % of the time (11 %).
        few_float_heads=4,
        few_float_head_ops=frozenset({"Conv"}),
        few_float_head_share=0.015,
        depthwise_channel_grids=True,
        # With everything in INT8 the four detectors were predicted at 0.2 to 0.5 and measured at -0.1 to 0.7,
        # 0.3 of it noise; what tuning then kept in float gained nothing and cost 1 to 10 % of the speed.
        default_predicted_drop=0.8,
        weight_bits=weight_bits,
    )
