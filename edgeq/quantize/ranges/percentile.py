"""The range without the outermost values."""

from __future__ import annotations

import numpy as np

from edgeq.quantize.grid import Range
from edgeq.quantize.statistics import TensorStatistics

__all__ = ["PERCENTILE", "percentile"]

PERCENTILE = 99.99
"""Share of the values kept, in percent."""


def percentile(statistics: TensorStatistics, *, kept: float = PERCENTILE) -> Range:
    """The interval that leaves ``(100 - kept) / 2`` percent of the values out on either side."""
    histogram = statistics.histogram
    cumulative = np.cumsum(histogram.counts) / max(histogram.counts.sum(), 1.0)
    outside = (1 - kept / 100) / 2
    first = int(np.searchsorted(cumulative, outside, side="right"))
    last = int(np.searchsorted(cumulative, 1 - outside, side="left"))
    low = histogram.low + first * histogram.width
    high = histogram.low + (min(last, len(cumulative) - 1) + 1) * histogram.width
    return Range(max(low, statistics.low), min(high, statistics.high))
