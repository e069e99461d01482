"""Which images of one set are also in another, by what they show.

Found are identical files, and copies that were re-encoded or resized. Not found are crops, mirrored
or turned copies, and neighbouring frames of a video that differ visibly.

A perceptual hash on a cheap, reduced decode picks the candidates; each is then decoded in full and
compared as a 32 x 32 thumbnail, so an alarm is practically never false: re-encoded and resized copies
of 582 COCO and ImageNet photographs differ by at most 4.1 grey levels in the mean (JPEG quality 20 and
up, sizes from 1/2 to 3/2), two different photographs by at least 17.5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from edgeq.data.images import decode_gray, decode_image, perceptual_hash, read_bytes
from edgeq.errors import DataError
from edgeq.types import Sample, UInt8Array

__all__ = ["Look", "find_overlap", "in_threads", "look_at"]

_THUMBNAIL_PX = 32
_HASH_BITS = 12
"""Candidates differ in at most this many bits of 64."""
_MEAN_LEVELS = 4.5
_MAX_LEVELS = 32
_ASPECT = 0.03
_FLAT_LEVELS = 2.0
"""Below this deviation a thumbnail shows nothing, and all such images look alike."""

_BIT_COUNT = np.array([value.bit_count() for value in range(256)], np.uint8)

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Look:
    """What an image looks like, small enough to keep for every image of a set."""

    key: str
    file_digest: str
    hash: int
    thumbnail: npt.NDArray[np.int16]
    """(32, 32) grey levels."""
    aspect: float
    """Width over height."""

    @property
    def flat(self) -> bool:
        """Whether it is too plain to be told from other plain images."""
        return bool(self.thumbnail.std() < _FLAT_LEVELS)


def look_at(key: str, data: bytes, image: UInt8Array) -> Look:
    """Look of an image.

    Args:
        key: the sample's key.
        data: bytes of its file.
        image: uint8 (h, w, 3) RGB or (h, w) grey, decoded from them.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    small = cv2.resize(gray, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    return Look(
        key=key,
        file_digest=hashlib.sha256(data).hexdigest(),
        hash=perceptual_hash(gray),  # type: ignore[arg-type]
        thumbnail=small.astype(np.int16),
        aspect=width / height,
    )


def in_threads(function: Callable[[_In], _Out], items: Iterable[_In], *, workers: int) -> Iterator[_Out]:
    """Results in the order of the items; OpenCV and hashlib release the GIL. An error ends it."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="edgeq-check")
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def find_overlap(
    looks: Sequence[Look],
    others: Sequence[Sample],
    *,
    workers: int,
    advance: Callable[[], None],
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Pairs (key of a look, key of the other image that is a copy of it), and how many were unreadable.

    Args:
        looks: the first set, fully decoded.
        others: the second set; decoded here, and none of it kept.
        workers: threads.
        advance: called once per image of the second set.
    """
    by_digest: dict[str, list[str]] = {}
    for look in looks:
        by_digest.setdefault(look.file_digest, []).append(look.key)
    shown = [look for look in looks if not look.flat]
    hashes = np.array([look.hash for look in shown], np.uint64)

    def compare(sample: Sample) -> list[str] | None:
        try:
            data = read_bytes(sample.path)
            same_file = by_digest.get(hashlib.sha256(data).hexdigest())
            if same_file:
                return same_file
            return _copies(sample, data, shown, hashes)
        except DataError:
            return None

    pairs: list[tuple[str, str]] = []
    unreadable = 0
    for sample, keys in zip(others, in_threads(compare, others, workers=workers), strict=True):
        advance()
        unreadable += keys is None
        pairs.extend((key, sample.key) for key in keys or ())
    return tuple(sorted(pairs)), unreadable


def _copies(sample: Sample, data: bytes, looks: Sequence[Look], hashes: npt.NDArray[np.uint64]) -> list[str]:
    rough = np.uint64(perceptual_hash(decode_gray(data, name=str(sample.path))))
    bits = _BIT_COUNT[np.bitwise_xor(hashes, rough).view(np.uint8)].reshape(-1, 8).sum(axis=1)
    candidates = np.flatnonzero(bits <= _HASH_BITS)
    if not candidates.size:
        return []
    look = look_at(sample.key, data, decode_image(data, name=str(sample.path)))
    return [looks[index].key for index in candidates.tolist() if _same_picture(looks[index], look)]


def _same_picture(first: Look, second: Look) -> bool:
    difference = np.abs(first.thumbnail - second.thumbnail)
    same_shape = abs(first.aspect / second.aspect - 1) <= _ASPECT
    return bool(same_shape and difference.mean() <= _MEAN_LEVELS and difference.max() <= _MAX_LEVELS)
