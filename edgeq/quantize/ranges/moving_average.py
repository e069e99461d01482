"""The range of an average image."""

from __future__ import annotations

from edgeq.quantize.grid import Range
from edgeq.quantize.statistics import TensorStatistics

__all__ = ["moving_average"]


def moving_average(statistics: TensorStatistics) -> Range:
    """Mean over the images of each image's smallest and largest value.

    The cumulative moving average: unlike an exponential one it does not depend on the order of the
    images, nor on a momentum.
    """
    return Range(float(statistics.image_low.mean()), float(statistics.image_high.mean()))
