"""Does the device compute what the host computes: detections of the same images, pair by pair.

Two lists of detections are equal to the bit, or they are paired: greedily by score within a class, each with
the box that lies nearest by greatest corner distance. What finds no partner within `PAIR_PX` is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeq.types import Detections, Prediction

__all__ = ["Parity", "parity"]

PAIR_PX = 16.0
"""Farther apart two boxes are two findings, not one with an error."""
CERTAIN = 0.05
"""Detections below this score come and go with the last bit, so unpaired ones are counted apart."""
CLOSE_PX = 2.0
CLOSE_SCORE = 0.05
_GOOD_SHARE = 0.95
"""INT8 kernels of two architectures round some sums differently, which moves a few detections by a step."""


@dataclass(frozen=True)
class Parity:
    """How far device and host are apart; errors are the greatest, over detections of at least `CERTAIN`."""

    image_count: int
    identical: bool
    """Every number of every detection is equal to the bit."""
    detection_count: int
    """On the host."""
    max_box_error_px: float
    max_score_error: float
    close_share: float
    """Part of those of at least `CERTAIN` with a partner within `CLOSE_PX` and `CLOSE_SCORE`, 0..1."""
    unpaired_count: int
    """Detections of either side of at least `CERTAIN` score that the other has not."""
    unpaired_faint_count: int
    """Those below it."""

    @property
    def good(self) -> bool:
        """Whether the two may be taken for the same computation."""
        return self.identical or self.close_share >= _GOOD_SHARE

    def sentence(self) -> str:
        """For people."""
        on = f"parity on {self.image_count} images: "
        if self.identical:
            return f"{on}identical to this machine's, to the bit ({self.detection_count} predictions)"
        return on + self.difference()

    def difference(self) -> str:
        """How far the two are apart, in words."""
        faint = f" ({self.unpaired_faint_count} more below a score of {CERTAIN:g})"
        return (
            f"boxes differ by at most {self.max_box_error_px:.3g} px, "
            f"scores by {self.max_score_error:.2g}; {self.close_share:.1%} agree within {CLOSE_PX:g} px and "
            f"{CLOSE_SCORE:g}; "
            f"{self.unpaired_count} of {self.detection_count} have no partner"
            f"{faint if self.unpaired_faint_count else ''}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data with the report's names."""
        return {**asdict(self), "good": self.good}


def parity(host: Sequence[Prediction], device: Sequence[Prediction]) -> Parity:
    """The comparison of predictions on the same images, in the same order.

    Raises:
        ValueError: different numbers of images, or detections against class scores.
    """
    if len(host) != len(device):
        raise ValueError(f"{len(host)} and {len(device)} images")
    identical, count, box_px, score, unpaired, faint = True, 0, 0.0, 0.0, 0, 0
    certain = close = 0
    for mine, theirs in zip(host, device, strict=True):
        if isinstance(mine, Detections) != isinstance(theirs, Detections):
            raise ValueError("detections against class scores")
        if not isinstance(mine, Detections) or not isinstance(theirs, Detections):
            count += 1
            mine, theirs = np.asarray(mine), np.asarray(theirs)
            identical &= bool(np.array_equal(mine, theirs))
            error = float(np.max(np.abs(mine - theirs), initial=0.0))
            score, certain, close = max(score, error), certain + 1, close + (error <= CLOSE_SCORE)
            continue
        count += len(mine.scores)
        if _same(mine, theirs):
            own = int((mine.scores >= CERTAIN).sum())
            certain, close = certain + own, close + own
            continue
        identical = False
        pairs, left = _pair(mine, theirs)
        box_px = max([box_px, *(px for px, _ in pairs)])
        score = max([score, *(off for _, off in pairs)])
        certain += len(pairs) + sum(value >= CERTAIN for value in left)
        close += sum(px <= CLOSE_PX and off <= CLOSE_SCORE for px, off in pairs)
        unpaired += sum(value >= CERTAIN for value in left)
        faint += sum(value < CERTAIN for value in left)
    share = close / certain if certain else 1.0
    return Parity(len(host), identical, count, box_px, score, share, unpaired, faint)


def _same(mine: Detections, theirs: Detections) -> bool:
    return (
        mine.boxes_xyxy.tobytes() == theirs.boxes_xyxy.tobytes()
        and mine.scores.tobytes() == theirs.scores.tobytes()
        and bool(np.array_equal(mine.class_ids, theirs.class_ids))
    )


def _pair(mine: Detections, theirs: Detections) -> tuple[list[tuple[float, float]], list[float]]:
    """Box and score error of each pair that is certain on either side, and the scores of what is alone."""
    free = np.ones(len(theirs.scores), dtype=bool)
    pairs: list[tuple[float, float]] = []
    left: list[float] = []
    for box, score, class_id in zip(mine.boxes_xyxy, mine.scores, mine.class_ids, strict=True):
        apart = np.abs(theirs.boxes_xyxy - box).max(axis=1, initial=0.0)
        apart = np.where(free & (theirs.class_ids == class_id), apart, np.inf)
        best = int(np.argmin(apart)) if len(apart) else -1
        if best < 0 or apart[best] > PAIR_PX:
            left.append(float(score))
            continue
        free[best] = False
        if max(score, theirs.scores[best]) >= CERTAIN:
            pairs.append((float(apart[best]), float(abs(theirs.scores[best] - score))))
    return pairs, left + [float(value) for value in theirs.scores[free]]
