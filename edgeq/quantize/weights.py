"""Weights to int8: symmetric, per output channel or per tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.quantize.recipe import Granularity, RangeMethod
from edgeq.types import Float32Array

__all__ = ["QuantisedWeight", "half_scale", "quantize_bias", "quantize_weight", "smallest_weight_scale"]

_SMALLEST_SCALE = 1e-8
_INT32_LIMIT = 2**31 - 1
_SHRINK_STEPS = np.linspace(0.8, 1.0, 21)


@dataclass(frozen=True)
class QuantisedWeight:
    """``real = scale * values`` with zero point 0."""

    values: npt.NDArray[np.int8]
    scale: Float32Array
    """(output channels,) or () for the whole tensor."""
    axis: int


def quantize_weight(
    weight: npt.NDArray[Any],
    *,
    axis: int,
    granularity: Granularity,
    method: RangeMethod,
    bits: int = 8,
    smallest_scale: npt.NDArray[Any] | float = 0.0,
    half_scales: bool = False,
) -> QuantisedWeight:
    """Round a float weight to int8 in -127..127, or -63..63 with 7 bits.

    The scale is ``max|w|`` over that limit; with ``mse`` a smaller one where that lowers the squared error.

    Args:
        weight: float32, any shape.
        axis: the output channel axis.
        granularity: one scale per channel of that axis, or one in all.
        method: ``minmax`` or ``mse``.
        bits: 8 or 7.
        smallest_scale: (output channels,) or one for all: what the bias needs to fit into int32.
        half_scales: scales that float16 holds.
    """
    limit = 2 ** (bits - 1) - 1
    rows = np.moveaxis(np.asarray(weight, np.float64), axis, 0).reshape(weight.shape[axis], -1)
    if granularity is Granularity.PER_TENSOR:
        rows = rows.reshape(1, -1)
    scale = np.maximum(np.abs(rows).max(axis=1) / limit, _SMALLEST_SCALE)
    if method is RangeMethod.MSE:
        scale = _least_error(rows, scale, limit)
    floor = np.max(smallest_scale) if granularity is Granularity.PER_TENSOR else smallest_scale
    scale = np.maximum(scale, floor).astype(np.float32)
    scale = half_scale(scale) if half_scales else scale
    if granularity is Granularity.PER_TENSOR:
        divisor: npt.NDArray[Any] = scale.reshape(())
        scale = scale.reshape(())
    else:
        divisor = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    values = np.clip(np.rint(weight / divisor), -limit, limit).astype(np.int8)
    return QuantisedWeight(values, scale, axis)


def half_scale(scale: npt.NDArray[Any]) -> Float32Array:
    """The next number that float16 holds, not below the scale, so that nothing new is clipped.

    Any shape. Numbers below float16's smallest normal one become that: some devices know no smaller ones.
    """
    wanted = np.maximum(np.asarray(scale, np.float32), np.finfo(np.float16).smallest_normal)
    rounded = wanted.astype(np.float16)
    above = np.nextafter(rounded, np.float16(np.inf))
    return np.asarray(np.where(rounded.astype(np.float32) < wanted, above, rounded), np.float32)


def quantize_bias(bias: npt.NDArray[Any], scale: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """int32 bias with ``scale = input scale x weight scale``, (output channels,).

    Values beyond int32 saturate; :func:`smallest_weight_scale` keeps that from happening.
    """
    quantised = np.rint(np.asarray(bias, np.float64) / np.asarray(scale, np.float64))
    return np.clip(quantised, -_INT32_LIMIT, _INT32_LIMIT).astype(np.int32)


def smallest_weight_scale(bias: npt.NDArray[Any], input_scale: float) -> npt.NDArray[np.float64]:
    """(output channels,) weight scales with which the bias fits into int32 with a bit to spare.

    A pruned channel has zero weights and a bias that matters: its weights ask for no scale, its bias does.
    """
    return np.asarray(np.abs(np.asarray(bias, np.float64)) / (input_scale * 2.0**30))


def _least_error(
    rows: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], limit: int
) -> npt.NDArray[np.float64]:
    best = scale.copy()
    best_error = np.full(len(scale), np.inf)
    for share in _SHRINK_STEPS:
        tried = scale * share
        rounded = np.clip(np.rint(rows / tried[:, None]), -limit, limit) * tried[:, None]
        error = np.sum((rounded - rows) ** 2, axis=1)
        better = error < best_error
        best[better], best_error[better] = tried[better], error[better]
    return np.asarray(best, np.float64)
