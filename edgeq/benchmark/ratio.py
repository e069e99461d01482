"""How many times faster: the ratio of two contestants, paired by round, with a bootstrap interval.

In round i both ran within milliseconds of each other, so what slowed the machine then slowed both and
cancels in r_i = baseline_i / other_i. The estimate is the median of r_i. Its 95 % interval is the
percentile interval of a moving-block bootstrap (Kunsch 1989): blocks of about n^(1/3) successive rounds
are drawn, because neighbouring rounds share the machine's state and are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Ratio", "paired_ratio"]

RESAMPLES = 1000


@dataclass(frozen=True)
class Ratio:
    """Median of the paired ratios: over 1 means faster than the baseline."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    rounds: int

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {"value": self.value, "interval": [self.low, self.high], "rounds": self.rounds}


def paired_ratio(
    baseline_ns: Sequence[int], other_ns: Sequence[int], *, seed: int = 0, block: int = 1
) -> Ratio:
    """Speed-up of ``other`` over ``baseline``, round by round.

    Args:
        baseline_ns: (n,) the baseline's samples, one per round.
        other_ns: (n,) the other's, same rounds.
        seed: of the bootstrap; the same samples and seed give the same interval.
        block: successive samples that were taken in one process, which share its state as well; the
            bootstrap draws blocks of at least so many.

    Raises:
        ValueError: no rounds, or lengths that differ.
    """
    base = np.asarray(baseline_ns, dtype=np.float64)
    other = np.asarray(other_ns, dtype=np.float64)
    if base.shape != other.shape or base.size == 0:
        raise ValueError(f"ratios are paired by round: {base.size} and {other.size} samples")
    # A CPU clock may be coarse (16 ms on Windows) and read 0: counted as one tick of 1 ns, not dropped.
    ratios = np.maximum(base, 1.0) / np.maximum(other, 1.0)
    medians = _bootstrap_medians(ratios, np.random.default_rng(seed), block)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high), int(ratios.size))


def _bootstrap_medians(
    values: npt.NDArray[np.float64], rng: np.random.Generator, least: int
) -> npt.NDArray[np.float64]:
    """(RESAMPLES,) medians of moving-block resamples; one resample in memory at a time."""
    count = values.size
    block = min(count, max(1, least, round(count ** (1 / 3))))
    blocks = -(-count // block)
    offsets = np.arange(block)
    medians = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        starts = rng.integers(0, count - block + 1, size=blocks)
        index = (starts[:, None] + offsets).ravel()[:count]
        medians[i] = np.median(values[index])
    return medians
