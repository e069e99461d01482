"""The range with the least squared error, seen through the activation that follows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeq.quantize.grid import Range
from edgeq.quantize.statistics import TensorStatistics
from edgeq.types import IntegerType

__all__ = ["Elementwise", "mse"]

FloatArray = npt.NDArray[np.float64]
Elementwise = Callable[[FloatArray], FloatArray]

_HIGH_SHARES = np.geomspace(0.03, 1.0, 56)
_LOW_SHARES = np.geomspace(0.005, 1.0, 64)
"""The floor of a SiLU's input can shrink much further than its ceiling."""


def mse(
    statistics: TensorStatistics,
    *,
    dtype: IntegerType,
    symmetric: bool,
    activation: Elementwise | None = None,
    bias_weight: float = 0.0,
    clip_weight: float = 1.0,
) -> Range:
    """The interval that minimises ``E[e^2] + bias_weight * E[e]^2``.

    ``e = f(q(x)) - f(x)`` over the histogram, with ``f`` the activation that reads the tensor, if it
    alone reads it: values that it maps to almost nothing need no part of the grid. Inside the interval
    rounding is uniform noise, ``step^2 / 12 * f'(x)^2``; outside it is the distance to the end. The
    second term weighs clipping, whose errors all have one sign: a convolution averages rounding
    out, not these. All pairs of ends on a grid of shares of the observed extremes are compared.
    Source: Banner et al. 2019, arXiv:1810.05723, for clipping against rounding; the rest is ours.

    Args:
        statistics: of the tensor.
        dtype: the grid's integer type.
        symmetric: whether the grid is symmetric around zero.
        activation: elementwise function applied to the values; None: the identity.
        bias_weight: weight of the squared mean error.
        clip_weight: how much more a squared error counts outside the interval than inside.
    """
    observed_low, observed_high = min(statistics.low, 0.0), max(statistics.high, 0.0)
    lows = np.asarray(observed_low * _LOW_SHARES if observed_low < 0 else [0.0])
    highs = np.asarray(observed_high * _HIGH_SHARES if observed_high > 0 else [0.0])
    error = _Clipping(statistics, activation or _identity)
    below_square, below_mean = error.below(lows)
    above_square, above_mean = error.above(highs)
    q_low, q_high = dtype.limits
    span = highs[None, :] - lows[:, None]
    if symmetric:
        # Both ends are at the larger magnitude, whatever the interval says.
        span = 2.0 * np.maximum(-lows[:, None], highs[None, :])
    step = span / (q_high - q_low)
    rounding = step * step / 12.0 * error.inside(lows, highs)
    bias = below_mean[:, None] + above_mean[None, :]
    clipped = below_square[:, None] + above_square[None, :]
    cost = rounding + clip_weight * clipped + bias_weight * bias * bias
    low, high = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return Range(float(lows[low]), float(highs[high]))


class _Clipping:
    """Errors of clipping a histogram at any point, from running sums."""

    def __init__(self, statistics: TensorStatistics, function: Elementwise) -> None:
        histogram = statistics.histogram
        self._function = function
        self._centers = histogram.centers
        weights = histogram.counts / max(float(histogram.counts.sum()), 1.0)
        values = function(self._centers)
        half = histogram.width / 2
        slope = (function(self._centers + half) - function(self._centers - half)) / (2 * half)
        moments = np.stack([weights, weights * values, weights * values * values, weights * slope * slope])
        self._sums = np.concatenate([np.zeros((4, 1)), np.cumsum(moments, axis=1)], axis=1)

    def below(self, ends: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean square and mean of ``f(end) - f(x)`` over x below each end."""
        return self._distance(self._sums[:, np.searchsorted(self._centers, ends)], ends)

    def above(self, ends: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The same over x above each end."""
        outside = self._sums[:, -1:] - self._sums[:, np.searchsorted(self._centers, ends)]
        return self._distance(outside, ends)

    def inside(self, lows: FloatArray, highs: FloatArray) -> FloatArray:
        """Mean of ``f'(x)^2`` over x between each pair of ends, (lows, highs)."""
        slopes = self._sums[3]
        first, last = np.searchsorted(self._centers, lows), np.searchsorted(self._centers, highs)
        return np.asarray(slopes[last][None, :] - slopes[first][:, None])

    def _distance(self, sums: FloatArray, ends: FloatArray) -> tuple[FloatArray, FloatArray]:
        weight, mean, square, _ = sums
        end = self._function(ends)
        return weight * end * end - 2 * end * mean + square, weight * end - mean


def _identity(values: FloatArray) -> FloatArray:
    return values
