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
    """On the inputs of convolutions and matrix products only: their outputs stay float inside fusions."""


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
    """Activations that the runtime folds into the convolution before them: no grid in between."""
    float_output_ops: frozenset[str] = frozenset()
    """Ops whose integer kernel can give float: as prediction layers they are INT8 and round no score."""
    fixed_outputs: Mapping[str, Affine] = field(default_factory=dict)
    """Op type -> the grid that its output always has."""
    quantize_bias: bool = True
    """int32 bias with scale input x weight; False: the runtime wants it in float."""
    float_heads: bool = True
    """Keep the prediction convolutions in float: a grid over a head tensor spends its levels on
    background logits and clips the confident ones."""
