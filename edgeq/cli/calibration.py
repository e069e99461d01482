"""Calibration and evaluation images as ``quantize`` needs them: opened, held apart and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeq.cli.console import Console
from edgeq.data.calibration import CalibrationCheck, check_calibration
from edgeq.data.classes import check_classes
from edgeq.data.dataset import open_dataset
from edgeq.data.select import partition, select
from edgeq.errors import DataError
from edgeq.evaluate.fit import Severity, check_input_fit
from edgeq.model.source import FloatModel
from edgeq.runtimes.base import Session
from edgeq.types import Dataset, PostProcess

__all__ = ["ImageChoice", "Images", "check_fit", "check_images", "open_images", "open_labelled"]


@dataclass(frozen=True)
class ImageChoice:
    """Which images the user named."""

    calib: Path | None
    """None: the precision takes no calibration."""
    calib_split: str
    count: int
    evaluation: Path | None
    eval_split: str
    measured: bool
    """A drop is to be measured, so there have to be labelled evaluation images."""
    allow_overlap: bool


@dataclass(frozen=True)
class Images:
    """Images to calibrate and to evaluate on."""

    calibration: Dataset
    evaluation: Dataset | None
    """None: there is none, so overlap cannot be checked."""


def open_images(choice: ImageChoice, model: FloatModel, console: Console) -> Images:
    """The sets that the user named, the calibration images already chosen.

    Raises:
        DataError: a set is wrong, does not fit the model, or is missing although a drop is to be measured.
    """
    names = model.head.class_names
    if choice.calib is None:
        raise DataError("no calibration images were named", fix="--calib with a data.yaml or a folder")
    calibration = open_dataset(
        choice.calib, split=choice.calib_split, class_names=names, labels_required=False
    )
    evaluation = _evaluation(choice, calibration, names, console)
    one_set = choice.evaluation is not None and evaluation is not None and _same(calibration, evaluation)
    if one_set and evaluation is not None and not choice.allow_overlap:
        calibration, evaluation = partition(evaluation, choice.count)
        if not evaluation.samples:
            raise DataError(
                f"all {len(calibration.samples)} images of {calibration.origin} would be calibrated on, "
                "which leaves none to evaluate on",
                fix="--calib-images with a smaller number, or another set with --eval",
            )
        console.note(
            f"one set for both: {len(calibration.samples)} images to calibrate, "
            f"the other {len(evaluation.samples)} to evaluate"
        )
    calibration = select(calibration, choice.count)
    for dataset in (calibration, *([evaluation] if evaluation is not None else [])):
        if dataset.task is model.head.task:
            check_classes(dataset, names)
        for warning in dataset.warnings:
            console.warn(f"{dataset.split} images: {warning}")
    return Images(calibration, evaluation)


def open_labelled(choice: ImageChoice, model: FloatModel, console: Console) -> Dataset | None:
    """Labelled images to evaluate a model on that was not calibrated; None: none were asked for.

    Raises:
        DataError: they are wrong, do not fit the model, or were not named although a drop is to be measured.
    """
    place = choice.evaluation or choice.calib
    if not choice.measured:
        return None
    if place is None:
        raise DataError("a drop takes labelled images", fix="name them with --eval")
    names = model.head.class_names
    found = open_dataset(place, split=choice.eval_split, class_names=names)
    check_classes(found, names)
    for warning in found.warnings:
        console.warn(f"{found.split} images: {warning}")
    return found


def check_images(images: Images, choice: ImageChoice, console: Console) -> CalibrationCheck:
    """The usable calibration images, with everything odd said.

    Raises:
        CalibrationError: they would silently give a bad model.
    """
    with console.progress() as progress:
        check = check_calibration(
            images.calibration,
            images.evaluation,
            allow_overlap=choice.allow_overlap,
            progress=lambda done, total: progress("check images", done, total),
        )
    for warning in check.warnings:
        console.warn(warning)
    return check


def check_fit(
    session: Session, check: CalibrationCheck, model: FloatModel, post: PostProcess, console: Console
) -> None:
    """Return if the pre-processing fits the float model; doubts are said.

    Raises:
        CalibrationError: it does not.
    """
    fit = check_input_fit(session.infer, check.samples, spec=model.input, head=model.head, post=post)
    for finding in fit.findings:
        if finding.severity is Severity.NOTE and finding.fix is None:
            console.note(finding.message)
        elif finding.severity is Severity.NOTE:
            console.warn(f"{finding.message} ({finding.fix})")
    fit.require()


def _evaluation(
    choice: ImageChoice, calibration: Dataset, names: tuple[str, ...], console: Console
) -> Dataset | None:
    """The set that the user named, else the evaluation split of the calibration set."""
    place = choice.evaluation or choice.calib
    assert place is not None  # open_images has seen to it
    try:
        found = open_dataset(
            place, split=choice.eval_split, class_names=names, labels_required=choice.measured
        )
    except DataError as error:
        if choice.measured:
            raise
        console.note(f"no evaluation images to check for overlap with: {error.message}")
        return None
    if choice.evaluation is None and _without_splits(calibration, found):
        if choice.measured:
            raise DataError(
                f"{calibration.origin} has no split {choice.eval_split!r} apart from the calibration images, "
                "and a drop needs labelled images of its own",
                fix="name them with --eval; the same set again evaluates on what --calib-images leaves over",
            )
        console.note("no evaluation images are known, so overlap with them is not checked (--eval)")
        return None
    if choice.measured and found.task is None:
        raise DataError(
            f"{found.origin} has no labels, so no drop can be measured", fix="name others with --eval"
        )
    return found


def _without_splits(first: Dataset, second: Dataset) -> bool:
    """Whether a set gave the same images for both splits because it knows no splits, as a folder does.

    A data.yaml that names the same images for both has an overlap, which is for the check to refuse.
    """
    return _same(first, second) and not first.origin.endswith((".yaml", ".yml"))


def _same(first: Dataset, second: Dataset) -> bool:
    """Whether two opened sets are one and the same."""
    return [sample.path for sample in first.samples] == [sample.path for sample in second.samples]
