"""Fewer images of a data set, spread evenly over it and always the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from edgeq.errors import DataError
from edgeq.types import Dataset

__all__ = ["evenly", "partition", "select"]

_Entry = TypeVar("_Entry")


def evenly(entries: Sequence[_Entry], limit: int) -> list[_Entry]:
    """At most ``limit`` of them, in equal steps: for a look; a set to calibrate on is drawn by `select`."""
    count = min(limit, len(entries))
    return [entries[index * len(entries) // count] for index in range(count)]


def select(dataset: Dataset, count: int, *, seed: int = 0) -> Dataset:
    """The data set with ``count`` of its images, in order; all of them where it has no more.

    The set is cut into ``count`` equal stretches and one image is drawn from each, so that sorted
    sets (by class, by scene, by time) are covered evenly.

    Raises:
        DataError: ``count`` is below 1.
    """
    return partition(dataset, count, seed=seed)[0]


def partition(dataset: Dataset, count: int, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """The data set that ``select`` gives, and the rest of the images: to calibrate and evaluate on one set.

    Raises:
        DataError: ``count`` is below 1.
    """
    if count < 1:
        raise DataError(f"{count} images of {dataset.origin} were asked for; it must be 1 or more")
    total = len(dataset.samples)
    if count >= total:
        return dataset, replace(dataset, samples=())
    edges = np.arange(count + 1) * total // count
    chosen = set(np.random.default_rng(seed).integers(edges[:-1], edges[1:]).tolist())
    taken = tuple(s for i, s in enumerate(dataset.samples) if i in chosen)
    rest = tuple(s for i, s in enumerate(dataset.samples) if i not in chosen)
    return replace(dataset, samples=taken), replace(dataset, samples=rest)
