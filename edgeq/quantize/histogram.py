"""A histogram whose range grows with what it sees, so that one pass over the images is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgeq.types import Float32Array

__all__ = ["BIN_COUNT", "Histogram", "merge_histograms"]

BIN_COUNT = 4096
"""Most bins of a histogram."""
_SMALLEST_EXPONENT = -60

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Counts over equal bins on a fixed lattice.

    The bin width is a power of two and bin ``i`` is ``[i * width, (i + 1) * width)``, so two
    histograms of any data can be brought to one width by adding neighbouring bins, exactly, and
    merged: what was counted in pieces equals what would have been counted in one go.
    """

    exponent: int
    """The bin width is ``2 ** exponent``."""
    start: int
    """Lattice index of the first bin."""
    counts: Counts

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def low(self) -> float:
        """Lower end of the first bin."""
        return self.start * self.width

    @property
    def centers(self) -> Counts:
        """Middle of each bin, (bins,)."""
        return np.asarray((self.start + np.arange(len(self.counts)) + 0.5) * self.width, np.float64)

    @classmethod
    def of(cls, values: Float32Array, low: float, high: float) -> Histogram:
        """Count values.

        Args:
            values: float32, any shape, finite; none outside ``low..high``.
            low: a lower bound, usually their minimum.
            high: an upper bound, usually their maximum.
        """
        # A constant tensor gets a narrow range around its value; two bins stay free for rounding.
        span = max(high - low, 1e-6 * max(abs(low), abs(high)))
        exponent = _SMALLEST_EXPONENT
        if span > 0:
            exponent = max(exponent, math.ceil(math.log2(span / (BIN_COUNT - 4))))
        if (top := max(abs(low), abs(high))) > 0:
            # OpenCV holds the ends as float32: lattice indices below 2^23 stay exact.
            exponent = max(exponent, math.ceil(math.log2(top)) - 22)
        width = math.ldexp(1.0, exponent)
        first, last = math.floor(low / width) - 1, math.floor(high / width) + 1
        # OpenCV's uniform histogram is several times faster than numpy's and releases the GIL.
        flat = np.ascontiguousarray(values, np.float32).reshape(1, -1)
        ends = [first * width, (last + 1) * width]
        counts = cv2.calcHist([flat], [0], None, [last - first + 1], ends).reshape(-1)
        return cls(exponent, first, counts.astype(np.float64))

    def coarsened(self, exponent: int) -> Histogram:
        """The same with bins of ``2 ** exponent``, at least the present width."""
        start, counts = self.start, self.counts
        for _ in range(exponent - self.exponent):
            counts = np.pad(counts, (start % 2, (len(counts) + start % 2) % 2))
            start, counts = start // 2, counts.reshape(-1, 2).sum(axis=1)
        return Histogram(exponent, start, counts)


def merge_histograms(first: Histogram, second: Histogram) -> Histogram:
    """Both together, on the finest bins that :data:`BIN_COUNT` of them can hold."""
    exponent = max(first.exponent, second.exponent)
    while True:
        left, right = first.coarsened(exponent), second.coarsened(exponent)
        start = min(left.start, right.start)
        end = max(left.start + len(left.counts), right.start + len(right.counts))
        if end - start <= BIN_COUNT:
            break
        exponent += 1
    counts = np.zeros(end - start)
    for part in (left, right):
        counts[part.start - start :][: len(part.counts)] += part.counts
    return Histogram(exponent, start, counts)
