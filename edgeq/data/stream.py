"""Input tensors of many images, read ahead in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from edgeq.data.images import read_image
from edgeq.data.preprocess import Geometry, preprocess
from edgeq.types import Float32Array, InputSpec, Sample

__all__ = ["iter_tensors"]

Loaded = tuple[Sample, Float32Array, Geometry]


def iter_tensors(samples: Iterable[Sample], spec: InputSpec, *, workers: int = 1) -> Iterator[Loaded]:
    """Sample, tensor float32 ``spec.shape`` and geometry of each image, in the given order.

    ``workers`` threads read ahead, at most two images each, so memory stays bounded. Closing the
    iterator (or leaving the loop and dropping it) stops them.

    Raises:
        DataError: an image cannot be read; raised when its turn comes, so the ones before it are used.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    return _stream(iter(samples), spec, workers)


def _stream(samples: Iterator[Sample], spec: InputSpec, workers: int) -> Iterator[Loaded]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="edgeq-images")
    waiting: deque[Future[Loaded]] = deque()
    try:
        waiting.extend(pool.submit(_load, s, spec) for s in islice(samples, 2 * workers))
        while waiting:
            loaded = waiting.popleft().result()
            waiting.extend(pool.submit(_load, s, spec) for s in islice(samples, 1))
            yield loaded
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load(sample: Sample, spec: InputSpec) -> Loaded:
    tensor, geometry = preprocess(read_image(sample.path), spec)
    return sample, tensor, geometry
