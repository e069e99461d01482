"""Images made ready ahead of their use, in the background: for a data set here, one by one on a device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from edgeq.data.images import read_image
from edgeq.data.preprocess import Geometry, preprocess
from edgeq.types import Float32Array, InputSpec, Sample

__all__ = ["iter_tensors", "read_ahead"]

_Item = TypeVar("_Item")
_Loaded = TypeVar("_Loaded")


def iter_tensors(
    samples: Iterable[Sample], spec: InputSpec, *, workers: int = 1
) -> Iterator[tuple[Sample, Float32Array, Geometry]]:
    """Sample, tensor float32 ``spec.shape`` and geometry of each image, in the given order, read ahead.

    Raises:
        DataError: an image cannot be read; raised when its turn comes, so the ones before it are used.
    """

    def load(sample: Sample) -> tuple[Sample, Float32Array, Geometry]:
        tensor, geometry = preprocess(read_image(sample.path), spec)
        return sample, tensor, geometry

    return read_ahead(samples, load, workers=workers)


def read_ahead(
    items: Iterable[_Item], load: Callable[[_Item], _Loaded], *, workers: int = 1
) -> Iterator[_Loaded]:
    """What ``load`` makes of each item, in the given order; an error of its is raised in its turn.

    ``workers`` threads load ahead, at most two items each, so memory stays bounded. Closing the iterator
    (or leaving the loop and dropping it) stops them.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    return _stream(iter(items), load, workers)


def _stream(items: Iterator[_Item], load: Callable[[_Item], _Loaded], workers: int) -> Iterator[_Loaded]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="edgeq-images")
    waiting: deque[Future[_Loaded]] = deque()
    try:
        waiting.extend(pool.submit(load, item) for item in islice(items, 2 * workers))
        while waiting:
            loaded = waiting.popleft().result()
            waiting.extend(pool.submit(load, item) for item in islice(items, 1))
            yield loaded
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
