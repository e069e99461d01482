"""Data sets as the flags name them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeq.bundle.manifest import CalibrationList
from edgeq.cli.console import Console
from edgeq.data.dataset import open_dataset
from edgeq.data.images import file_digest
from edgeq.data.select import select
from edgeq.errors import DataError
from edgeq.types import Dataset, HeadSpec

__all__ = ["open_evaluation", "without_calibration_images"]


def open_evaluation(
    path: Path,
    head: HeadSpec,
    console: Console,
    *,
    split: str = "val",
    images: int | None = None,
    image_folder: Path | None = None,
    calibration: CalibrationList | None = None,
    allow_overlap: bool = False,
) -> Dataset:
    """Labelled images to measure on.

    Args:
        path: what the user named.
        head: the model's; gives the class names.
        console: told the data set's warnings.
        split: of a set that has splits.
        images: at most so many, evenly spread; None: all.
        image_folder: of a JSON or CSV whose images lie elsewhere.
        calibration: images that the model was calibrated on: left out, and that is said.
        allow_overlap: leave them in.

    Raises:
        DataError: no data set, or nothing is left of it.
    """
    dataset = open_dataset(path, split=split, images=image_folder, class_names=head.class_names)
    for warning in dataset.warnings:
        console.warn(warning)
    if calibration is not None and not allow_overlap:
        dataset = without_calibration_images(dataset, calibration, console)
    return dataset if images is None else select(dataset, images)


def without_calibration_images(dataset: Dataset, calibration: CalibrationList, console: Console) -> Dataset:
    """The data set less the files that a model was calibrated on.

    Raises:
        DataError: nothing is left.
    """
    used = {image.sha256 for image in calibration.images}
    kept = tuple(sample for sample in dataset.samples if file_digest(sample.path) not in used)
    left_out = len(dataset.samples) - len(kept)
    if left_out:
        console.warn(
            f"{left_out} of {len(dataset.samples)} images were used to calibrate this model and are left out "
            "(--allow-overlap keeps them)"
        )
    if not kept:
        raise DataError(
            f"all {len(dataset.samples)} images of {dataset.origin} were used to calibrate this model, so "
            "a drop measured on them would be too good",
            fix="evaluate on other images, for example --split val, or insist with --allow-overlap",
        )
    return replace(dataset, samples=kept) if left_out else dataset
