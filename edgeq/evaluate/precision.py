"""COCO's average precision from a match table, for many multisets of its images at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.evaluate.matching import IOU_THRESHOLDS, MatchTable

__all__ = ["average_precisions", "mean_average_precision"]

_RECALLS = np.linspace(0.0, 1.0, 101)
_CELLS = 4_000_000
"""Detections x multisets that are held at a time."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CountArray = npt.NDArray[np.int32]


def mean_average_precision(table: MatchTable, counts: IntArray) -> FloatArray:
    """(r,) mAP 50-95 of each multiset, 0..1; NaN where a multiset has no labelled box.

    Args:
        table: matches of n images.
        counts: (r, n) how often each image is in each multiset; ones for the data set itself.
    """
    parts = np.array_split(counts, max(1, _largest_class(table) * len(counts) // _CELLS))
    values = []
    for part in parts:
        per_class = average_precisions(table, part).mean(axis=2)
        known = np.isfinite(per_class)
        total = np.where(known, per_class, 0).sum(axis=1)
        values.append(
            np.divide(total, known.sum(axis=1), out=np.full(len(part), np.nan), where=known.any(axis=1))
        )
    return np.concatenate(values)


def average_precisions(table: MatchTable, counts: IntArray) -> FloatArray:
    """(r, nc, 10) average precision by class and IoU threshold; NaN for a class without labelled boxes.

    An image that is drawn twice brings its detections twice, one after the other. Precision is wanted only
    where a hit stands, since between hits it can only fall, so each class needs the running count of its
    detections once and that of its hits for each threshold.
    """
    weights = np.ascontiguousarray(counts.T, dtype=np.int32)
    positives = counts @ table.positives
    result = np.zeros((len(counts), table.positives.shape[1], len(IOU_THRESHOLDS)))
    start = 0
    for class_id, end in enumerate(table.class_ends):
        part = slice(start, end)
        start = end
        if table.hits[:, part].any():
            result[:, class_id] = _class_precisions(table, part, weights, positives[:, class_id])
    result[positives == 0] = np.nan
    return result


def _largest_class(table: MatchTable) -> int:
    """Detections of the class that has the most."""
    return int(np.diff(table.class_ends, prepend=0).max(initial=1))


def _class_precisions(table: MatchTable, part: slice, weights: CountArray, positives: IntArray) -> FloatArray:
    """(r, 10) average precision of one class."""
    images, hits, ignored = table.images[part], table.hits[:, part], table.ignored[:, part]
    seen = np.cumsum(weights[images], axis=0, dtype=np.int32)
    return np.stack(
        [_one_precision(images, h, i, seen, weights, positives) for h, i in zip(hits, ignored, strict=True)],
        axis=1,
    )


def _one_precision(
    images: IntArray,
    hits: npt.NDArray[np.bool_],
    ignored: npt.NDArray[np.bool_],
    seen: CountArray,
    weights: CountArray,
    positives: IntArray,
) -> FloatArray:
    """(r,) average precision of one class at one threshold.

    Args:
        images: (d,) image of each detection, best score first.
        hits: (d,)
        ignored: (d,)
        seen: (d, r) running count of detections.
        weights: (n, r) how often each image counts.
        positives: (r,) labelled boxes.
    """
    at = np.flatnonzero(hits)
    if len(at) == 0:
        return np.zeros(len(positives))
    found = np.cumsum(weights[images[at]], axis=0, dtype=np.int32)
    judged = seen[at]
    skipped = np.flatnonzero(ignored)
    if len(skipped):
        running = np.cumsum(weights[images[skipped]], axis=0, dtype=np.int32)
        before = np.searchsorted(skipped, at)
        judged = judged - np.concatenate([np.zeros_like(running[:1]), running])[before]
    precision = found / (judged + np.spacing(1.0))
    best_from_here = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    # A hit answers for the recall points between the recall before it and its own.
    reached = np.searchsorted(_RECALLS, found / np.maximum(positives, 1), side="right")
    answered = np.diff(reached, axis=0, prepend=0)
    average: FloatArray = (best_from_here * answered).sum(axis=0) / len(_RECALLS)
    return average
