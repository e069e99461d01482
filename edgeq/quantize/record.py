"""Running statistics of tensors, image by image.

Nothing is kept of an image but its extremes, so memory grows with (tensors x bins) and not with the
number of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.errors import CalibrationError
from edgeq.quantize.histogram import Histogram, merge_histograms
from edgeq.quantize.statistics import ChannelStatistics, TensorStatistics
from edgeq.quantize.summary import subset
from edgeq.types import Float32Array

__all__ = ["Recorder", "SummaryRecorder", "not_finite"]

_COUNTED_TOGETHER = 8
"""Values of so many images are counted at a time: a histogram of a few thousand costs mostly its making."""


class SummaryRecorder:
    """Statistics of several tensors from their summaries (:mod:`edgeq.quantize.summary`)."""

    def __init__(
        self, names: Sequence[str], channel_counts: Sequence[int], subset_sizes: Sequence[int]
    ) -> None:
        self._names = list(names)
        self._channel_ends = np.cumsum([0, *channel_counts])
        self._subset_ends = np.cumsum([0, *subset_sizes])
        self._channels = _Channels(int(self._channel_ends[-1]))
        """Of all tensors, one after the other."""
        self._image_lows: list[Float32Array] = []
        self._image_highs: list[Float32Array] = []
        self._uncounted: list[Float32Array] = []
        """Subsets of the last images."""
        self._histograms: list[Histogram | None] = [None] * len(self._names)

    def add(self, lows: Float32Array, highs: Float32Array, subsets: Float32Array) -> None:
        """One image: extremes per channel, and values for the histograms, of all tensors.

        Raises:
            CalibrationError: one of them is NaN or infinite.
        """
        starts = self._channel_ends[:-1]
        lows, highs = lows.reshape(-1), highs.reshape(-1)
        image_lows, image_highs = np.minimum.reduceat(lows, starts), np.maximum.reduceat(highs, starts)
        # A lonely NaN gets lost in ONNX Runtime's extremes, but then it is in the layers behind.
        with np.errstate(over="ignore"):
            seen = np.add.reduceat(subsets, self._subset_ends[:-1])
        wrong = np.flatnonzero(~np.isfinite(image_lows) | ~np.isfinite(image_highs) | np.isnan(seen))
        if len(wrong):
            raise not_finite(self._names[wrong[0]])
        self._channels.add(lows, highs)
        self._image_lows.append(image_lows)
        self._image_highs.append(image_highs)
        self._uncounted.append(subsets)
        if len(self._uncounted) == _COUNTED_TOGETHER:
            self._count()

    def build(self) -> dict[str, TensorStatistics]:
        """Statistics by name; nothing where no image was added."""
        if not self._image_lows:
            return {}
        if self._uncounted:
            self._count()
        image_lows, image_highs = np.stack(self._image_lows, axis=1), np.stack(self._image_highs, axis=1)
        found = {}
        for index, (name, histogram) in enumerate(zip(self._names, self._histograms, strict=True)):
            if histogram is not None:
                own = slice(self._channel_ends[index], self._channel_ends[index + 1])
                found[name] = TensorStatistics(
                    image_lows[index], image_highs[index], histogram, self._channels.build(own)
                )
        return found

    def _count(self) -> None:
        count = len(self._uncounted)
        lows, highs = np.min(self._image_lows[-count:], axis=0), np.max(self._image_highs[-count:], axis=0)
        for index, histogram in enumerate(self._histograms):
            own = slice(self._subset_ends[index], self._subset_ends[index + 1])
            values = [subsets[own] for subsets in self._uncounted]
            self._histograms[index] = _counted(histogram, values, float(lows[index]), float(highs[index]))
        self._uncounted.clear()


class Recorder:
    """Statistics of one tensor of any shape."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lows: list[float] = []
        self._highs: list[float] = []
        self._uncounted: list[Float32Array] = []
        """Of the last images."""
        self._histogram: Histogram | None = None
        self._channels: _Channels | None = None

    @property
    def used(self) -> bool:
        """Whether it has seen anything."""
        return bool(self._lows)

    def add(self, values: Float32Array) -> None:
        """One image.

        Raises:
            CalibrationError: NaN or infinity in it.
        """
        if values.ndim == 4 and values.shape[0] == 1:
            rows = values.reshape(values.shape[1], -1)
            lows, highs = rows.min(axis=1), rows.max(axis=1)
            low, high = float(np.min(lows)), float(np.max(highs))
            if np.isfinite(low) and np.isfinite(high):
                self._channels = self._channels or _Channels(len(lows))
                self._channels.add(lows, highs)
        else:
            low, high = float(np.min(values)), float(np.max(values))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise not_finite(self._name)
        self._lows.append(low)
        self._highs.append(high)
        self._uncounted.append(subset(values))
        if len(self._uncounted) == _COUNTED_TOGETHER:
            self._count()

    def _count(self) -> None:
        count = len(self._uncounted)
        low, high = min(self._lows[-count:]), max(self._highs[-count:])
        self._histogram = _counted(self._histogram, self._uncounted, low, high)
        self._uncounted.clear()

    def build(self) -> TensorStatistics:
        """Statistics of at least one image."""
        if self._uncounted:
            self._count()
        if self._histogram is None:
            raise ValueError(f"{self._name!r} was never seen")
        return TensorStatistics(
            np.asarray(self._lows, np.float32),
            np.asarray(self._highs, np.float32),
            self._histogram,
            self._channels.build() if self._channels is not None else None,
        )


class _Channels:
    """Running extremes of channels."""

    def __init__(self, channels: int) -> None:
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)
        self._sums = np.zeros((2, channels))
        self._count = 0

    def add(self, lows: Float32Array, highs: Float32Array) -> None:
        np.minimum(self._low, lows, out=self._low)
        np.maximum(self._high, highs, out=self._high)
        self._sums += np.stack([lows, highs])
        self._count += 1

    def build(self, own: slice = slice(None)) -> ChannelStatistics:
        """Of these channels."""
        means = (self._sums[:, own] / self._count).astype(np.float32)
        return ChannelStatistics(self._low[own], self._high[own], *means)


def _counted(before: Histogram | None, values: Sequence[Float32Array], low: float, high: float) -> Histogram:
    """A histogram with the values of some more images, which lie between low and high, added."""
    counted = Histogram.of(np.concatenate(values), low, high)
    return counted if before is None else merge_histograms(before, counted)


def not_finite(name: str) -> CalibrationError:
    """The error that says in which tensor."""
    return CalibrationError(
        f"the float model gives NaN or infinity in tensor {name!r}",
        fix="check the model with its own framework, and that the input's range is right",
    )
