"""The plan: for every op INT8 or float with the reason, for every tensor its grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeq.quantize.grid import Affine, ChannelAffine
from edgeq.quantize.recipe import Granularity, Precision, RangeMethod
from edgeq.quantize.weights import QuantisedWeight
from edgeq.types import Float32Array

__all__ = ["OpPlan", "Plan", "TensorPlan"]


@dataclass(frozen=True)
class OpPlan:
    """One op's precision."""

    name: str
    op_type: str
    precision: Precision
    reason: str
    """Why it is float, or "INT8"."""


@dataclass(frozen=True)
class TensorPlan:
    """One tensor's grid."""

    name: str
    grid: Affine
    method: str
    """Range method that gave it, ``head``, ``fixed`` or ``shared with TENSOR``."""
    channels: ChannelAffine | None = None
    """A grid for each channel, which goes before ``grid``; that then spans all of them."""


@dataclass(frozen=True)
class Plan:
    """Statistics, scheme and recipe, resolved."""

    runtime: str
    ops: Mapping[str, OpPlan]
    """By node name, in graph order."""
    tensors: Mapping[str, TensorPlan]
    """By tensor name; a tensor without an entry stays float."""
    granularity: Granularity
    weight_range: RangeMethod
    quantize_bias: bool
    weight_bits: int = 8
    half_scales: bool = False
    """Every scale is a number that float16 holds."""
    bias_shifts: Mapping[str, Float32Array] = field(default_factory=dict)
    """Node name -> (output channels,) to be added to its bias."""
    stored_weights: frozenset[str] = frozenset()
    """Names of float layers whose weights are INT8 all the same."""
    weights: Mapping[str, QuantisedWeight] = field(default_factory=dict)
    """Node name -> its weight, where that is not simply rounded."""

    @property
    def int8_ops(self) -> tuple[OpPlan, ...]:
        """Ops that compute in INT8."""
        return tuple(op for op in self.ops.values() if op.precision is Precision.INT8)

    @property
    def float_ops(self) -> tuple[OpPlan, ...]:
        """Ops that stay float."""
        return tuple(op for op in self.ops.values() if op.precision is Precision.FLOAT)
