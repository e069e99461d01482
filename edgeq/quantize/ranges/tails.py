"""Where the values of a channel end, beyond those that calibration happened to see.

A channel of a late layer has 49 values in an image and fires in few: its largest value in 64 images is soon
exceeded, and a grid of its own that ends there clips. A grid for all channels has no such trouble, since
another channel's range covers it.
"""

from __future__ import annotations

import math

from edgeq.quantize.statistics import ChannelStatistics
from edgeq.types import Float32Array

__all__ = ["channel_ends"]

_RARE = 1e6
"""One value in so many may lie outside."""


def channel_ends(
    seen: ChannelStatistics, *, images: int, positions: int
) -> tuple[Float32Array, Float32Array]:
    """Low and high end of each channel, (c,) each.

    Where tails are exponential with scale ``b``, the largest value of an image is Gumbel distributed, and
    its expectation over n images is ``b ln(n)`` above that over one (Coles 2001, An Introduction to
    Statistical Modeling of Extreme Values, section 3.1). That gives ``b``; one value in a million lies
    ``b ln(1e6 / seen)`` above the largest of those seen. Nothing is added where as many were seen.

    Args:
        seen: extremes over all images, and their means over images.
        images: how many.
        positions: values of a channel in one image.
    """
    beyond = math.log(_RARE / (images * positions)) / math.log(images) if images > 1 else 0.0
    share = max(beyond, 0.0)
    low: Float32Array = seen.low + share * (seen.low - seen.mean_low)
    high: Float32Array = seen.high + share * (seen.high - seen.mean_high)
    return low, high
