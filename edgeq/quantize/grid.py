"""The integer grid: scale, zero point and what rounding to it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.types import Float32Array, IntegerType

__all__ = ["Affine", "ChannelAffine", "Range", "affine", "channel_affine", "fake_quantize", "qdq_domain"]

_SMALLEST_SCALE = 1e-9
"""A constant zero tensor still needs a scale that is a normal float32."""


@dataclass(frozen=True)
class Range:
    """The interval that is to be representable."""

    low: float
    high: float


def qdq_domain(dtype: str) -> str:
    """Operator set of QuantizeLinear and DequantizeLinear with that integer type.

    ONNX's own takes 16-bit integers from opset 21 on; ONNX Runtime's contributed one does at any.
    """
    return "com.microsoft" if dtype == "int16" else ""


@dataclass(frozen=True)
class Affine:
    """Per-tensor quantisation: ``real = scale * (quantised - zero_point)``."""

    scale: float
    zero_point: int
    dtype: IntegerType

    @property
    def range(self) -> Range:
        """The representable interval."""
        low, high = self.dtype.limits
        return Range((low - self.zero_point) * self.scale, (high - self.zero_point) * self.scale)


@dataclass(frozen=True, eq=False)
class ChannelAffine:
    """Quantisation with one grid per channel of axis 1."""

    scale: Float32Array
    """(c,)"""
    zero_point: npt.NDArray[Any]
    """(c,) of ``dtype``."""
    dtype: IntegerType


def affine(interval: Range, dtype: IntegerType, *, symmetric: bool) -> Affine:
    """Scale and zero point for an interval, widened to hold zero exactly.

    Asymmetric: ``scale = (high - low) / (q_max - q_min)``, ``zero_point = round(q_min - low / scale)``.
    Symmetric: ``scale = max(|low|, |high|) / q_max``, zero point at the middle of the grid
    (0 for signed types, 128 for uint8). Source: ONNX QuantizeLinear; Jacob et al. 2018, arXiv:1712.05877.
    """
    q_low, q_high = dtype.limits
    low, high = min(interval.low, 0.0), max(interval.high, 0.0)
    if symmetric:
        middle = (q_low + q_high + 1) // 2
        return Affine(_scale(max(-low, high) / (q_high - middle)), middle, dtype)
    scale = _scale((high - low) / (q_high - q_low))
    return Affine(scale, int(np.clip(round(q_low - low / scale), q_low, q_high)), dtype)


def channel_affine(
    low: npt.NDArray[Any], high: npt.NDArray[Any], dtype: IntegerType, *, symmetric: bool
) -> ChannelAffine:
    """The grids of :func:`affine` for the intervals of all channels, (c,) each."""
    grids = [
        affine(Range(float(a), float(b)), dtype, symmetric=symmetric) for a, b in zip(low, high, strict=True)
    ]
    return ChannelAffine(
        np.asarray([grid.scale for grid in grids], np.float32),
        np.asarray([grid.zero_point for grid in grids], dtype.value),
        dtype,
    )


def fake_quantize(values: npt.NDArray[Any], grid: Affine | ChannelAffine) -> npt.NDArray[Any]:
    """Values rounded to the grid, half to even as ONNX does, and back; any shape, or (1, c, ...) with
    grids per channel."""
    q_low, q_high = grid.dtype.limits
    scale: npt.NDArray[Any] | float = grid.scale
    zero: npt.NDArray[Any] | float = grid.zero_point
    if isinstance(grid, ChannelAffine):
        shape = [-1 if axis == 1 else 1 for axis in range(values.ndim)]
        scale, zero = grid.scale.reshape(shape), grid.zero_point.astype(np.float32).reshape(shape)
    quantised = np.clip(np.rint(values / scale) + zero, q_low, q_high)
    return np.asarray((quantised - zero) * scale)


def _scale(value: float) -> float:
    """A scale as the runtime will hold it: float32, not zero."""
    return float(np.float32(max(value, _SMALLEST_SCALE)))
