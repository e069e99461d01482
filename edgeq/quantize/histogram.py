"""A histogram whose range grows with what it sees, so that one pass over the images is enough."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgeq.types import Float32Array

__all__ = ["BIN_COUNT", "Histogram", "HistogramBuilder"]

BIN_COUNT = 4096
"""Bins of a fresh histogram. Growth merges pairs, so at least a quarter of them stays in use."""


@dataclass(frozen=True)
class Histogram:
    """Counts over equal bins: ``counts[i]`` values lie in ``[low + i * width, low + (i + 1) * width)``."""

    low: float
    width: float
    counts: npt.NDArray[np.float64]

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """Middle of each bin, (bins,)."""
        return self.low + (np.arange(len(self.counts)) + 0.5) * self.width

    def trimmed(self) -> Histogram:
        """The same without the empty bins at both ends."""
        used = np.flatnonzero(self.counts)
        if len(used) == 0:
            return self
        first, last = int(used[0]), int(used[-1])
        return Histogram(self.low + first * self.width, self.width, self.counts[first : last + 1])


class HistogramBuilder:
    """Takes values in a stream; memory is ``BIN_COUNT`` bins whatever the number of values.

    The first values set the range. A value outside doubles the bin width (neighbouring bins merge,
    which is exact) until it fits.
    """

    def __init__(self) -> None:
        self._low = 0.0
        self._width = 0.0
        self._counts: npt.NDArray[np.float64] = np.zeros(BIN_COUNT)

    def add(self, values: Float32Array, low: float, high: float) -> None:
        """Count values.

        Args:
            values: float32, any shape, finite.
            low: their minimum.
            high: their maximum.
        """
        if self._width == 0.0:
            # A constant tensor gets a narrow range around its value.
            span = max(high - low, abs(high) * 1e-3, 1e-12)
            self._low, self._width = low, span * (1 + 1e-6) / BIN_COUNT
        while low < self._low:
            self._double(towards_low=True)
        while high >= self._low + self._width * BIN_COUNT:
            self._double(towards_low=False)
        # OpenCV's uniform histogram is several times faster than numpy's and releases the GIL.
        edges = [self._low, self._low + self._width * BIN_COUNT]
        flat = np.ascontiguousarray(values, np.float32).reshape(1, -1)
        self._counts += cv2.calcHist([flat], [0], None, [BIN_COUNT], edges).reshape(-1)

    def build(self) -> Histogram:
        """What was counted so far."""
        return Histogram(self._low, max(self._width, 1e-12), self._counts.copy()).trimmed()

    def _double(self, *, towards_low: bool) -> None:
        pairs = self._counts.reshape(-1, 2).sum(axis=1)
        empty = np.zeros(BIN_COUNT // 2)
        if towards_low:
            self._low -= self._width * BIN_COUNT
            self._counts = np.concatenate([empty, pairs])
        else:
            self._counts = np.concatenate([pairs, empty])
        self._width *= 2
