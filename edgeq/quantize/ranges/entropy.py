"""The range whose quantised distribution diverges least from the observed one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.quantize.grid import Range
from edgeq.quantize.statistics import TensorStatistics

__all__ = ["entropy"]

_BINS = 2048
_LEVELS = 128
_STEP = 16
"""Thresholds are tried every so many bins."""


def entropy(statistics: TensorStatistics) -> Range:
    """Clip where the Kullback-Leibler divergence of the quantised from the observed |x| is least.

    The calibration of TensorRT (Migacz, "8-bit inference with TensorRT", GTC 2017): for every
    threshold the histogram of magnitudes, with the outliers added to its last bin, is compared with
    itself merged into 128 levels. The interval is the observed one, clipped to +-threshold.
    """
    histogram = statistics.histogram
    magnitudes = np.abs(histogram.centers)
    top = float(max(abs(statistics.low), abs(statistics.high), 1e-12))
    counts, _ = np.histogram(magnitudes, bins=_BINS, range=(0.0, top), weights=histogram.counts)
    best, best_divergence = _BINS, np.inf
    for threshold in range(_LEVELS, _BINS + 1, _STEP):
        divergence = _divergence(counts, threshold)
        if divergence < best_divergence:
            best, best_divergence = threshold, divergence
    limit = best / _BINS * top
    return Range(max(statistics.low, -limit), min(statistics.high, limit))


def _divergence(counts: npt.NDArray[np.float64], threshold: int) -> float:
    observed = counts[:threshold].copy()
    kept = observed > 0
    edges = np.linspace(0, threshold, _LEVELS + 1).astype(int)[:-1]
    sums = np.add.reduceat(counts[:threshold], edges)
    populated = np.add.reduceat(kept.astype(float), edges)
    level_of_bin = np.searchsorted(edges, np.arange(threshold), side="right") - 1
    spread = np.where(kept, sums[level_of_bin] / np.maximum(populated[level_of_bin], 1), 0.0)
    observed[-1] += counts[threshold:].sum()
    p, q = observed / max(observed.sum(), 1.0), spread / max(spread.sum(), 1.0)
    shared = (p > 0) & (q > 0)
    # Mass that the quantised distribution cannot represent at all costs as at the smallest q.
    missing = p[(p > 0) & (q == 0)].sum() * 20.0
    return float(np.sum(p[shared] * np.log(p[shared] / q[shared])) + missing)
