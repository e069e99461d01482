"""Range methods: one file each, one table here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.quantize.grid import Range
from edgeq.quantize.ranges.entropy import entropy
from edgeq.quantize.ranges.minmax import minmax
from edgeq.quantize.ranges.moving_average import moving_average
from edgeq.quantize.ranges.mse import Elementwise, mse
from edgeq.quantize.ranges.percentile import percentile
from edgeq.quantize.recipe import RangeMethod
from edgeq.quantize.statistics import TensorStatistics
from edgeq.types import IntegerType

__all__ = ["choose_range", "sigmoid", "silu"]


def choose_range(
    method: RangeMethod,
    statistics: TensorStatistics,
    *,
    dtype: IntegerType,
    symmetric: bool,
    activation: Elementwise | None = None,
) -> Range:
    """The interval that one method gives; ``auto`` is decided in :mod:`edgeq.quantize.auto`."""
    if method is RangeMethod.MINMAX:
        return minmax(statistics)
    if method is RangeMethod.MOVING_AVERAGE:
        return moving_average(statistics)
    if method is RangeMethod.PERCENTILE:
        return percentile(statistics)
    if method is RangeMethod.ENTROPY:
        return entropy(statistics)
    if method is RangeMethod.MSE:
        return mse(statistics, dtype=dtype, symmetric=symmetric, activation=activation)
    raise ValueError(f"{method.value} is not a single method")


def silu(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``x * sigmoid(x)``, elementwise."""
    return values * sigmoid(values)


def sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``1 / (1 + exp(-x))``, elementwise."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -60.0, 60.0))), np.float64)
