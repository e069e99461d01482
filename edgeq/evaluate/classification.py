"""Top-1, top-5 and agreement of classifiers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import DataError
from edgeq.types import Float32Array

__all__ = ["ClassificationMetrics", "agreement", "label_ranks", "score_classes"]

_TOP_K = 5


@dataclass(frozen=True)
class ClassificationMetrics:
    """Share of images, 0..1, whose class is the model's best guess, or among its best five."""

    top1: float
    top5: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def label_ranks(scores: Float32Array, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) how many classes the model puts before the right one; 0 is a top-1 hit.

    Among equal scores the lower class index goes first, as with argmax.

    Args:
        scores: (n, nc), the larger the surer.
        labels: (n,) the right classes.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    ranks: npt.NDArray[np.int64] = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return ranks


def score_classes(scores: Float32Array, labels: npt.NDArray[np.int64]) -> ClassificationMetrics:
    """Top-1 and top-5.

    Raises:
        DataError: there are no images.
    """
    if len(labels) == 0:
        raise DataError("there are no labelled images, so there is no top-1")
    ranks = label_ranks(scores, labels)
    return ClassificationMetrics(top1=float((ranks == 0).mean()), top5=float((ranks < _TOP_K).mean()))


def agreement(first: Float32Array, second: Float32Array) -> float:
    """Share of images, 0..1, for which two models have the same best guess; needs no labels.

    Args:
        first: (n, nc) scores.
        second: (n, nc) scores of another model for the same images.
    """
    return float((first.argmax(axis=1) == second.argmax(axis=1)).mean())
