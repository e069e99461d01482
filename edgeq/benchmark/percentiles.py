"""Every percentile that edgeq quotes comes from `quantile`, with its interval and the samples it needs.

Two rules stand on the same fact: of n independent samples, the number above the true q-quantile is
binomial with n trials and probability 1 - q.

*Enough samples* is MLPerf's early-stopping rule for its single-stream scenario (MLPerf Inference Rules,
appendix "Early Stopping Criterion"; LoadGen's ``early_stopping.cc`` and ``results.cc``; confidence 0.99,
tolerance 0). With t(n) the greatest t for which

    P(at most t of n samples lie above the true q-quantile) = sum_{k<=t} C(n, k) (1-q)^k q^(n-k) <= 1 - 0.99

the t-th largest sample is the early-stopping estimate, which the true quantile exceeds in at most 1 % of
runs; a run without even t = 1 quotes nothing. That takes 11 samples for p50, 64 for p90, 662 for p99.

*The interval* is the classical distribution-free one from order statistics (David and Nagaraja, Order
Statistics, 3rd ed., section 7.1): [x_(l), x_(u)] covers the true quantile with P(l <= B <= u - 1), B
binomial with n and q; at most 2.5 % is left out on each side.

Both assume independent samples. Latencies on a machine whose load drifts are not quite that, so the
intervals are too narrow there; `edgeq.benchmark.findings` says when a machine was that noisy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["Quantile", "early_stopping_rank", "needed_samples", "quantile"]

EARLY_STOPPING_CONFIDENCE = 0.99
INTERVAL_COVERAGE = 0.95


@dataclass(frozen=True)
class Quantile:
    """One percentile of a latency, in milliseconds."""

    percent: float
    samples: int
    """How many samples there were."""
    needed: int
    """How many the early-stopping rule asks for."""
    value_ms: float | None
    """The sample quantile (nearest rank); None: too few samples to quote one."""
    low_ms: float | None
    """Lower end of the 95 % interval."""
    high_ms: float | None
    """Upper end of the 95 % interval."""
    early_stopping_ms: float | None
    """MLPerf's estimate: with 99 % confidence the true percentile is not above it."""

    @property
    def name(self) -> str:
        """``p50``, ``p90``, ``p99``, ``p99.9``."""
        return f"p{self.percent:g}"

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """The 95 % interval, where the percentile is quoted."""
        return None if self.low_ms is None or self.high_ms is None else (self.low_ms, self.high_ms)


def quantile(samples_ns: Sequence[int] | npt.NDArray[np.int64], percent: float) -> Quantile:
    """The percentile of raw samples, quoted only when they are enough.

    Args:
        samples_ns: (n,) latencies in nanoseconds, any order.
        percent: 0 < percent < 100.

    Raises:
        ValueError: percent out of range.
    """
    if not 0 < percent < 100:
        raise ValueError(f"a percentile lies between 0 and 100, not {percent}")
    ordered = np.sort(np.asarray(samples_ns, dtype=np.int64))
    count = len(ordered)
    needed = needed_samples(percent)
    if count < needed:
        return Quantile(percent, count, needed, None, None, None, None)
    low_rank, high_rank = _interval_ranks(count, percent / 100)

    def at(rank: int) -> float:
        return float(ordered[rank - 1]) / 1e6

    # Nearest rank: a latency that was measured, never one between two. The small term guards against
    # 0.9 * 10 = 9.000000000000002 being rounded up to rank 10.
    rank = max(1, math.ceil(count * percent / 100 - 1e-9))
    early = at(count - early_stopping_rank(count, percent) + 1)
    return Quantile(percent, count, needed, at(rank), at(low_rank), at(high_rank), early)


@lru_cache(maxsize=64)
def needed_samples(percent: float) -> int:
    """The fewest samples from which ``percent`` may be quoted: the smallest n with t(n) >= 1."""
    q = percent / 100
    allowed = 1 - EARLY_STOPPING_CONFIDENCE

    def enough(n: int) -> bool:
        # P(0 or 1 of n above) in closed form; log1p keeps it exact for q near 1.
        log_q = math.log1p(-(1 - q))
        return math.exp(n * log_q) + n * (1 - q) * math.exp((n - 1) * log_q) <= allowed

    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def early_stopping_rank(count: int, percent: float) -> int:
    """t(n): which largest sample is the early-stopping estimate; 0 when there are too few samples."""
    above = _binomial_cdf(count, 1 - percent / 100)
    return max(0, int(np.searchsorted(above, 1 - EARLY_STOPPING_CONFIDENCE, side="right")) - 1)


def _interval_ranks(count: int, q: float) -> tuple[int, int]:
    """Ranks (from 1) of the order statistics that bound the 95 % interval; clipped to 1 and n.

    Lower: the greatest l with P(B <= l - 1) <= 2.5 %. Upper: the smallest u with P(B >= u) <= 2.5 %.
    """
    tail = (1 - INTERVAL_COVERAGE) / 2
    below = _binomial_cdf(count, q)
    low = int(np.searchsorted(below, tail, side="right"))
    # P(B >= u) = P(n - B <= n - u), a lower tail again: sums of small numbers stay exact.
    above = _binomial_cdf(count, 1 - q)
    high = count + 1 - int(np.searchsorted(above, tail, side="right"))
    return max(1, low), min(count, high)


def _binomial_cdf(count: int, probability: float) -> npt.NDArray[np.float64]:
    """P(X <= k) for k = 0..count, X binomial; terms in logarithms, so no factorial overflows.

    Returns:
        float64 (count + 1,), non-decreasing, the last is 1 within rounding.
    """
    k = np.arange(count + 1, dtype=np.float64)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, count + 1, dtype=np.float64)))))
    log_choose = log_factorial[-1] - log_factorial - log_factorial[::-1]
    log_terms = log_choose + k * math.log(probability) + (count - k) * math.log1p(-probability)
    cdf: npt.NDArray[np.float64] = np.cumsum(np.exp(log_terms))
    return cdf
