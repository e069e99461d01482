"""Paired bootstrap over images: float and INT8 are judged on the same resampled images.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval). Pairing takes
out what both models share, the difficulty of the images, and leaves the spread of the difference.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.evaluate.drop import Drop
from edgeq.evaluate.matching import MatchTable
from edgeq.evaluate.precision import mean_average_precision

__all__ = ["detection_drop", "hit_drop", "resample_counts"]

_INTERVAL_PERCENT = (2.5, 97.5)


def resample_counts(*, image_count: int, replicates: int, seed: int) -> npt.NDArray[np.int64]:
    """(replicates, image_count) how often each image is drawn; each row sums to ``image_count``."""
    chances = np.full(image_count, 1 / image_count)
    return np.random.default_rng(seed).multinomial(image_count, chances, size=replicates)


def detection_drop(float_table: MatchTable, int8_table: MatchTable, *, replicates: int, seed: int) -> Drop:
    """Drop of mAP 50-95.

    Args:
        float_table: matches of the float model.
        int8_table: matches of the INT8 model on the same images in the same order.
        replicates: resampled sets of images.
        seed: the same seed gives the same interval.
    """
    image_count = float_table.image_count
    if int8_table.image_count != image_count:
        raise ValueError("the two tables are of different images")
    itself = np.ones((1, image_count), dtype=np.int64)
    counts = resample_counts(image_count=image_count, replicates=replicates, seed=seed)
    counts = np.concatenate([itself, counts])
    drops = mean_average_precision(float_table, counts) - mean_average_precision(int8_table, counts)
    return _drop("map50_95", drops, image_count=image_count, seed=seed)


def hit_drop(
    float_hits: npt.NDArray[np.bool_], int8_hits: npt.NDArray[np.bool_], *, replicates: int, seed: int
) -> Drop:
    """Drop of top-1, from whether each model had each image right.

    Args:
        float_hits: (n,) of the float model.
        int8_hits: (n,) of the INT8 model, the same images in the same order.
        replicates: resampled sets of images.
        seed: the same seed gives the same interval.
    """
    if float_hits.shape != int8_hits.shape:
        raise ValueError("the hits are of different images")
    image_count = len(float_hits)
    difference = float_hits.astype(np.int64) - int8_hits.astype(np.int64)
    counts = resample_counts(image_count=image_count, replicates=replicates, seed=seed)
    sums = np.concatenate([[difference.sum()], counts @ difference])
    return _drop("top1", sums / image_count, image_count=image_count, seed=seed)


def _drop(metric: str, drops: npt.NDArray[np.float64], *, image_count: int, seed: int) -> Drop:
    """The drop from its value (first) and its replicates (the rest), as fractions."""
    replicates = drops[1:][np.isfinite(drops[1:])]
    low, high = np.percentile(replicates, _INTERVAL_PERCENT)
    return Drop(
        metric=metric,
        drop_points=float(drops[0] * 100),
        drop_interval_points=(float(low * 100), float(high * 100)),
        standard_error_points=float(replicates.std(ddof=1) * 100),
        image_count=image_count,
        replicates=len(replicates),
        seed=seed,
    )
