"""Which detections hit which labelled boxes, by COCO's rules, kept per image.

The tables lead to the average precision of any multiset of the images (see ``precision.py``), which is what
the bootstrap needs: matching is done once, resampling only counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.types import Detections, DetectionTruth

__all__ = ["IOU_THRESHOLDS", "ImageMatches", "MatchTable", "match_image", "match_images", "overlaps"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's: 0.50, 0.55, ... 0.95."""
_PER_CLASS = 100
"""COCO's maxDets: detections of one class in one image that count."""
_LARGEST_AREA_PX2 = 1e10
"""COCO's area range "all"; a labelled box or an unmatched detection outside of it is ignored."""

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageMatches:
    """Matches of one image; n detections, best score first."""

    scores: npt.NDArray[np.float32]
    """(n,)"""
    class_ids: IntArray
    """(n,)"""
    hits: BoolArray
    """(10, n) at each IoU threshold: a labelled box was found."""
    ignored: BoolArray
    """(10, n) at each IoU threshold: neither right nor wrong (on a crowd)."""
    positives: IntArray
    """(nc,) labelled boxes of each class that ought to be found."""


@dataclass(frozen=True)
class MatchTable:
    """Matches of all images together; d detections sorted by class, then by score, best first."""

    images: IntArray
    """(d,) image that each detection is in."""
    hits: BoolArray
    """(10, d)"""
    ignored: BoolArray
    """(10, d)"""
    class_ends: IntArray
    """(nc,) where each class's detections end."""
    positives: IntArray
    """(image_count, nc) labelled boxes that ought to be found."""

    @property
    def image_count(self) -> int:
        """Number of images."""
        return len(self.positives)


def match_images(
    detections: Sequence[Detections], truths: Sequence[DetectionTruth], *, class_count: int
) -> MatchTable:
    """The match table of images in a fixed order."""
    matched = [match_image(d, t, class_count=class_count) for d, t in zip(detections, truths, strict=True)]
    if not matched:
        raise ValueError("no images to match")
    sizes = [len(image.scores) for image in matched]
    images = np.repeat(np.arange(len(matched)), sizes)
    class_ids = np.concatenate([image.class_ids for image in matched])
    # Stable, so equal scores keep the order of images and of detections in them, as COCO has it.
    order = np.lexsort((-np.concatenate([image.scores for image in matched]), class_ids))
    return MatchTable(
        images=images[order],
        hits=np.concatenate([image.hits for image in matched], axis=1)[:, order],
        ignored=np.concatenate([image.ignored for image in matched], axis=1)[:, order],
        class_ends=np.searchsorted(class_ids[order], np.arange(class_count), side="right"),
        positives=np.stack([image.positives for image in matched]),
    )


def match_image(detections: Detections, truth: DetectionTruth, *, class_count: int) -> ImageMatches:
    """Matches of one image.

    Best score first, each detection takes the labelled box of its class with the largest IoU that is not
    yet taken; only if there is none, a crowd box, which any number may share and which makes the detection
    neither right nor wrong. For crowds the IoU is over the detection's own area.
    """
    order = _counted(detections)
    class_ids, scores = detections.class_ids[order], detections.scores[order]
    boxes = detections.boxes_xyxy[order].astype(np.float64)
    ignore = truth.crowd | (truth.area_px2 > _LARGEST_AREA_PX2)
    wanted = truth.class_ids[~ignore]
    hits = np.zeros((len(IOU_THRESHOLDS), len(order)), dtype=np.bool_)
    ignored = np.zeros_like(hits)
    if len(order) and len(truth.class_ids):
        same = class_ids[:, None] == truth.class_ids[None, :]
        overlap = np.where(same, overlaps(boxes, truth), 0.0)
        _assign(overlap, ignore, truth.crowd, hits=hits, ignored=ignored)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    ignored |= ~hits & ((area < 0) | (area > _LARGEST_AREA_PX2))
    return ImageMatches(
        scores=scores,
        class_ids=class_ids,
        hits=hits,
        ignored=ignored,
        positives=np.bincount(wanted, minlength=class_count),
    )


def _counted(detections: Detections) -> IntArray:
    """Detections that count, best score first: the best 100 of each class."""
    order = np.argsort(-detections.scores, kind="stable")
    if len(order) <= _PER_CLASS:
        return order
    by_class = np.argsort(detections.class_ids[order], kind="stable")
    sorted_ids = detections.class_ids[order][by_class]
    rank = np.empty_like(order)
    rank[by_class] = np.arange(len(order)) - np.searchsorted(sorted_ids, sorted_ids, side="left")
    return order[rank < _PER_CLASS]


def overlaps(boxes_xyxy: npt.NDArray[np.floating], truth: DetectionTruth) -> FloatArray:
    """(n, m) IoU of detections and labelled boxes; over the detection's own area for crowds.

    Widths are taken first and added again, in float64, because COCO's boxes are x, y, width, height.
    """
    d, t = boxes_xyxy.astype(np.float64), truth.boxes_xyxy.astype(np.float64)
    d_size, t_size = d[:, 2:] - d[:, :2], t[:, 2:] - t[:, :2]
    corner = np.minimum((d[:, :2] + d_size)[:, None], (t[:, :2] + t_size)[None])
    inside = np.maximum(corner - np.maximum(d[:, None, :2], t[None, :, :2]), 0).prod(axis=2)
    union = d_size.prod(axis=1)[:, None] + np.where(truth.crowd, 0, t_size.prod(axis=1))[None]
    union = union - np.where(truth.crowd, 0, inside)
    overlap: FloatArray = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return overlap


def _assign(
    overlap: FloatArray, ignore: BoolArray, crowd: BoolArray, *, hits: BoolArray, ignored: BoolArray
) -> None:
    """Fill ``hits`` and ``ignored`` (10, n) from ``overlap`` (n, m)."""
    least = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    free = np.ones((len(least), overlap.shape[1]), dtype=np.bool_)
    levels = np.arange(len(least))
    # The last of equal overlaps wins in COCO: search from the back.
    last = overlap.shape[1] - 1
    for n in np.flatnonzero(overlap.max(axis=1) >= least[0]):
        fits = (overlap[n] >= least[:, None]) & free
        for among, outcome in ((fits & ~ignore, hits), (fits & ignore, ignored)):
            reach = np.where(among, overlap[n], -1.0)
            best = last - reach[:, ::-1].argmax(axis=1)
            found = among[levels, best] & ~hits[:, n]
            outcome[found, n] = True
            free[levels[found], best[found]] = crowd[best[found]]
