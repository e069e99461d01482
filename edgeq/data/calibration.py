"""Is this set of images fit to calibrate on? The checks that keep a bad model from coming out silently."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from edgeq.data.files import listed
from edgeq.data.images import decode_image, pixel_digest, read_bytes
from edgeq.data.overlap import Look, find_overlap, in_threads, look_at
from edgeq.errors import CalibrationError, DataError
from edgeq.types import Dataset, Sample

__all__ = ["FEW_IMAGES", "CalibrationCheck", "Unreadable", "check_calibration"]

FEW_IMAGES = 16
"""With fewer usable images the ranges depend on which images they happen to be."""

_UNREADABLE_SHARE = 0.05
_MAX_WORKERS = 8


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be used, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class CalibrationCheck:
    """What the check found."""

    samples: tuple[Sample, ...]
    """The usable images, each content once, in the order of the set."""
    digests: tuple[str, ...]
    """Pixel digest of each usable image, in the order of ``samples``."""
    unreadable: tuple[Unreadable, ...]
    duplicates: tuple[tuple[str, ...], ...]
    """Groups of keys with the same pixels; the first of each group is used."""
    blank: tuple[str, ...]
    """Keys of images of a single colour; they are used all the same."""
    overlap: tuple[tuple[str, str], ...]
    """(calibration key, evaluation key) of copies; not empty only where overlap was allowed."""
    warnings: tuple[str, ...]
    """To be shown to the user, one line each."""


@dataclass(frozen=True)
class _Seen:
    """One image after its only reading."""

    sample: Sample
    digest: str
    blank: bool
    look: Look


def check_calibration(
    calibration: Dataset,
    evaluation: Dataset | None,
    *,
    allow_overlap: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CalibrationCheck:
    """The usable images of a calibration set, with everything that is odd about it.

    Every image is read once. Images are compared with the evaluation set by content (see
    ``edgeq.data.overlap`` for what counts as a copy).

    Args:
        calibration: the set to calibrate on.
        evaluation: the set that the metric is measured on, if there is one.
        allow_overlap: common images give a warning instead of an error.
        progress: called with (images done, images in all) from the calling thread.

    Raises:
        CalibrationError: no usable image, over 5 % unreadable, or images in common with the evaluation set.
    """
    others = evaluation.samples if evaluation is not None else ()
    advance = _counter(len(calibration.samples) + len(others), progress)
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    results = []
    for result in in_threads(_see, calibration.samples, workers=workers):
        advance()
        results.append(result)
    unreadable = tuple(result for result in results if isinstance(result, Unreadable))
    _check_unreadable(calibration, unreadable)
    groups = _groups(result for result in results if isinstance(result, _Seen))
    used = [group[0] for group in groups]
    overlap, unseen = find_overlap([s.look for s in used], others, workers=workers, advance=advance)
    if overlap and not allow_overlap:
        raise _overlap_error(calibration, overlap)
    check = CalibrationCheck(
        samples=tuple(seen.sample for seen in used),
        digests=tuple(seen.digest for seen in used),
        unreadable=unreadable,
        duplicates=tuple(tuple(s.sample.key for s in group) for group in groups if len(group) > 1),
        blank=tuple(seen.sample.key for seen in used if seen.blank),
        overlap=overlap,
        warnings=(),
    )
    return replace(check, warnings=tuple(_warnings(check, unseen)))


def _counter(total: int, progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return advance


def _see(sample: Sample) -> _Seen | Unreadable:
    try:
        data = read_bytes(sample.path)
        image = decode_image(data, name=sample.key)
    except DataError as error:
        return Unreadable(sample.key, error.message)
    # The first row settles it for nearly every image.
    blank = bool((image[0] == image[0, 0]).all() and (image == image[0, 0]).all())
    return _Seen(sample, pixel_digest(image), blank, look_at(sample.key, data, image))


def _check_unreadable(calibration: Dataset, unreadable: tuple[Unreadable, ...]) -> None:
    total = len(calibration.samples)
    if total == 0:
        raise CalibrationError(f"{calibration.origin} holds no images to calibrate on")
    reasons = "; ".join(item.reason for item in unreadable[:3])
    if len(unreadable) == total:
        raise CalibrationError(f"none of the {total} calibration images can be read: {reasons}")
    if len(unreadable) > _UNREADABLE_SHARE * total:
        raise CalibrationError(
            f"{len(unreadable)} of {total} calibration images cannot be read, which is more than "
            f"{_UNREADABLE_SHARE:.0%}: {reasons}",
            fix="replace or remove these files",
        )


def _groups(seen: Iterable[_Seen]) -> list[list[_Seen]]:
    """Images with the same pixels together, in the order of their first."""
    groups: dict[str, list[_Seen]] = {}
    for one in seen:
        groups.setdefault(one.digest, []).append(one)
    return list(groups.values())


def _overlap_error(calibration: Dataset, overlap: tuple[tuple[str, str], ...]) -> CalibrationError:
    pairs = [ours if ours == theirs else f"{ours} = {theirs}" for ours, theirs in overlap]
    count = len({ours for ours, _ in overlap})
    return CalibrationError(
        f"{count} of {len(calibration.samples)} calibration images are also in the evaluation set "
        f"({listed(pairs)}), so the measured drop would be too good",
        fix="calibrate on other images, for example the train split, or insist with --allow-overlap",
    )


def _warnings(check: CalibrationCheck, unseen: int) -> Iterable[str]:
    if len(check.samples) < FEW_IMAGES:
        yield (
            f"only {len(check.samples)} usable calibration images; with fewer than {FEW_IMAGES} the result "
            "depends on which ones they are (64 to 256 that look like the real input are good)"
        )
    if check.unreadable:
        names = listed([item.key for item in check.unreadable])
        yield f"{len(check.unreadable)} calibration images cannot be read and are left out: {names}"
    if check.duplicates:
        extra = sum(len(group) - 1 for group in check.duplicates)
        names = listed([" = ".join(group) for group in check.duplicates])
        yield f"{extra} calibration images are copies of others and are left out: {names}"
    if check.blank:
        yield f"{len(check.blank)} calibration images are of a single colour: {listed(check.blank)}"
    if check.overlap:
        count = len({ours for ours, _ in check.overlap})
        yield f"{count} calibration images are also in the evaluation set: the measured drop is too good"
    if unseen:
        yield f"{unseen} evaluation images cannot be read and were not compared with the calibration set"
