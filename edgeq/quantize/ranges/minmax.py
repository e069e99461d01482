"""The whole observed range."""

from __future__ import annotations

from edgeq.quantize.grid import Range
from edgeq.quantize.statistics import TensorStatistics

__all__ = ["minmax"]


def minmax(statistics: TensorStatistics) -> Range:
    """Smallest and largest value over all images: nothing is clipped."""
    return Range(statistics.low, statistics.high)
