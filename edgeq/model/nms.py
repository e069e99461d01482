"""Greedy non-maximum suppression per class, in numpy, with the work done block by block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.types import Float32Array

__all__ = ["nms"]

_BLOCK = 192
"""Candidates looked at together: large enough to hide numpy's call cost, small enough for the cache."""


def nms(
    boxes_xyxy: Float32Array,
    scores: Float32Array,
    class_ids: npt.NDArray[np.int64],
    *,
    iou: float,
    max_detections: int,
) -> npt.NDArray[np.int64]:
    """Indices of the boxes that stay, best score first; equal scores in the order given.

    A box goes when a better box of its class that stays overlaps it by more than ``iou``. The result
    is that of the plain greedy loop. Only the ``max_detections`` best are wanted, so the candidates are
    taken in order of score, a block at a time, until there are enough.

    Args:
        boxes_xyxy: (n, 4) x1, y1, x2, y2, finite and with finite areas, in any one unit.
        scores: (n,) finite.
        class_ids: (n,) boxes of different classes never suppress each other.
        iou: overlap above which the weaker box goes, 0..1.
        max_detections: at most so many indices come back, over all classes.
    """
    order = np.argsort(-scores, kind="stable")
    # inter / (a + b - inter) > iou  <=>  inter > iou / (1 + iou) * (a + b): no division, no union.
    width_height = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    shares = (width_height[:, 0] * width_height[:, 1] * (iou / (1 + iou))).astype(boxes_xyxy.dtype)
    kept = order[:0]
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        if len(kept):
            block = block[~_suppresses(kept, block, boxes_xyxy, shares, class_ids).any(axis=0)]
        kept = np.concatenate(
            [kept, block[_survivors(_suppresses(block, block, boxes_xyxy, shares, class_ids))]]
        )
        if len(kept) >= max_detections:
            break
    return kept[:max_detections].astype(np.int64, copy=False)


def _suppresses(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    boxes_xyxy: Float32Array,
    shares: Float32Array,
    class_ids: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """(len(first), len(second)) whether the two boxes are of one class and overlap too much."""
    a, b = boxes_xyxy[first].T[:, :, None], boxes_xyxy[second].T[:, None, :]
    width = np.minimum(a[2], b[2])
    width -= np.maximum(a[0], b[0])
    np.maximum(width, 0, out=width)
    height = np.minimum(a[3], b[3])
    height -= np.maximum(a[1], b[1])
    np.maximum(height, 0, out=height)
    width *= height
    over: npt.NDArray[np.bool_] = width > shares[first][:, None] + shares[second][None, :]
    over &= class_ids[first][:, None] == class_ids[second][None, :]
    return over


def _survivors(over: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(n,) which boxes stay, for ``over`` (n, n) in order of score.

    Solves keep[j] = not any(over[i, j] and keep[i] for i < j) by repeating it: box j is settled once all
    boxes that it hangs on are, so this ends after as many rounds as the longest chain of overlaps has links.
    """
    matters = np.triu(over, k=1)
    keep: npt.NDArray[np.bool_] = np.logical_not(matters.any(axis=0))
    if keep.all():
        return keep
    while True:
        settled: npt.NDArray[np.bool_] = np.logical_not(matters[keep].any(axis=0))
        if np.array_equal(settled, keep):
            return keep
        keep = settled
