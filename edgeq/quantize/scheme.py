"""What a runtime's INT8 kernels accept: the facts that planning and insertion obey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from edgeq.quantize.grid import Affine
from edgeq.types import IntegerType

__all__ = ["Placement", "Scheme"]


class Placement(str, Enum):
    """Where QuantizeLinear/DequantizeLinear pairs stand."""

    EVERY_TENSOR = "every-tensor"
    """On all inputs and outputs of an INT8 op, so that the runtime fuses the op into an integer kernel."""
    COMPUTE_INPUTS = "compute-inputs"
    """On the inputs of INT8 ops only, activations apart: what a convolution makes stays float inside its
    fusion with bias, activation and residual add, and is rounded once, for all its readers."""


@dataclass(frozen=True)
class Scheme:
    """INT8 as one runtime on one architecture computes it."""

    runtime: str
    activation_dtype: IntegerType
    symmetric_activations: bool
    placement: Placement
    integer_ops: frozenset[str]
    """ONNX ops that have an integer kernel; everything else stays float."""
    shared_scale_ops: frozenset[str]
    """Ops whose output takes its first input's scale and zero point: they only move or select values."""
    joining_ops: frozenset[str] = frozenset()
    """Ops that want all inputs on the output's grid: an input that nothing else reads takes it, which
    rounds once instead of twice. Other inputs keep their own and are rounded again."""
    fused_activations: frozenset[str] = frozenset()
    """Ops that the runtime folds into the convolution before them: no grid in between."""
    one_grid_ops: frozenset[str] = frozenset()
    """Ops whose inputs all have to lie on the grid of their output."""
    float_output_ops: frozenset[str] = frozenset()
    """Ops whose integer kernel can give float: as prediction layers they are INT8 and round no score."""
    fixed_outputs: Mapping[str, Affine] = field(default_factory=dict)
    """Op type -> the grid that its output always has."""
    quantize_bias: bool = True
    """int32 bias with scale input x weight; False: the runtime wants it in float."""
    depthwise_channel_grids: bool = False
    """A tensor that only depthwise convolutions read may have one grid per channel."""
    default_predicted_drop: float = 0.2
    """Points; layers go to float for accuracy's sake from here on where the user names no budget. Less than
    predictions can resolve is no reason where a float layer costs much speed."""
    half_scales: bool = False
    """Scales are numbers that float16 holds, since the runtime stores them so."""
    weight_bits: int = 8
    """7: weights in -63..63, so that two products with uint8 fit into the 16 bits in which x86 without VNNI
    adds them."""
    float_heads: bool = True
    """Keep the prediction convolutions in float: a grid over a head tensor spends its levels on
    background logits and clips the confident ones."""
    few_float_heads: int = 0
    """So many prediction layers or fewer stay in float even where INT8 ones could give float."""
    few_float_head_ops: frozenset[str] | None = None
    """Of these ops only; None: of any."""
    few_float_head_share: float = 1.0
    """Of those few only the cheapest, up to this share of all multiplications."""
    split_heads: bool = False
    """Split prediction layers whose outputs are sliced apart: a tensor has one grid, and slices copy."""
    stored_weight_ops: frozenset[str] = frozenset()
    """Ops that store their weights in INT8, per channel, also where they compute in float: the runtime
    restores them. Not those that a rule of the recipe keeps in float."""
    equalize_depthwise: bool = False
    """Equalise what depthwise convolutions read, unless the recipe says otherwise: without a zero point and
    with one scale per tensor, most channels would be left with a few levels."""
    least_equalized_spread: float = 1.0
    """A SiLU is equalised only where one grid costs its average channel this factor in noise. Above 1 where
    the multiplication that it takes is a pass over the tensor of its own."""
    points_per_float_share: float = 3.0
    """A hundredth of the multiplications in float has to lower the predicted drop by a hundredth of this: on
    YOLOv5n in ONNX Runtime a tenth in float took a quarter of the speed and gained nothing that 204 images
    could show. More where INT8 is faster, and a float layer costs more of it."""
    max_float_layers: int | None = None
    """So many layers tuning may keep in float for accuracy; None: as many as their share of the work allows.
    Where INT8 layers are far faster than float ones, each costs two changes of type besides."""
