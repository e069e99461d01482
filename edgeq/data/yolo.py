"""Ultralytics' ``data.yaml`` with one label text file per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from edgeq.data.classes import placeholder_names
from edgeq.data.files import (
    absolute,
    first_problem,
    inside,
    key_of,
    list_images,
    listed,
    no_split,
    read_text,
    require_files,
)
from edgeq.data.yolo_labels import LabelRules, read_labels
from edgeq.errors import DataError
from edgeq.types import Dataset, Sample, Task

__all__ = ["open_yolo"]

SPLITS = ("train", "val", "test")


def _name(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        raise ValueError("a class name must be text; put it in quotes")
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("a class name must be text")


def _entries(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Name = Annotated[str, BeforeValidator(_name)]
_Entries = Annotated[list[str] | None, BeforeValidator(_entries)]


class _DataYaml(BaseModel):
    """What edgeq reads of a data.yaml; other keys are the trainer's."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=False)

    path: str | None = None
    train: _Entries = None
    val: _Entries = None
    test: _Entries = None
    names: dict[int, _Name] | list[_Name] | None = None
    nc: int | None = None
    kpt_shape: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Image:
    """One image and where its labels are expected."""

    key: str
    path: Path
    labels: Path


def open_yolo(path: Path, *, split: str, class_names: Sequence[str] | None, labels_required: bool) -> Dataset:
    """Data set of one split of a data.yaml.

    ``path:`` in it is relative to the file's own folder; ``train``, ``val`` and ``test`` each are a
    folder, a list of folders, or a .txt list of images. Labels are found as Ultralytics finds them:
    the last ``/images/`` of an image's path becomes ``/labels/`` and its suffix ``.txt``. An image
    without a label file has no objects; that is counted in the warnings.

    Raises:
        DataError: anything in the file, its folders or its labels is wrong.
    """
    config = _parse(path)
    names = _class_names(path, config, class_names)
    root = _root(path, config)
    images = _images(path, config, root, split)
    rules = LabelRules(class_count=len(names) if names else None, keypoints=config.kpt_shape is not None)
    warnings: list[str] = []
    samples, labelled = _samples(images, rules, warnings, labels_required=labels_required)
    if not labelled and labels_required:
        raise DataError(
            f"none of the {len(images)} images of {path} ({split}) has a label file; "
            f"the first was expected at {images[0].labels}",
            fix="put images in .../images/... and labels in .../labels/... with the same names",
        )
    return Dataset(
        samples=samples,
        class_names=names,
        task=Task.DETECT if labelled else None,
        origin=str(path),
        split=split,
        warnings=tuple(warnings),
    )


def _parse(path: Path) -> _DataYaml:
    text = read_text(path)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise DataError(f"{path} is not valid YAML{place}: {problem}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a data.yaml: it holds no keys", fix="it needs val: and names:")
    try:
        return _DataYaml.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error)}") from error


def _class_names(path: Path, config: _DataYaml, given: Sequence[str] | None) -> tuple[str, ...]:
    names = config.names
    if names is None:
        if config.nc is not None and config.nc < 1:
            raise DataError(f"{path}: nc is {config.nc}; it must be 1 or more")
        if given is not None:
            return tuple(given)
        return placeholder_names(config.nc or 0)
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(
                f"{path}: the keys of names must be 0 to {len(names) - 1}, not {sorted(names)[:5]} ...",
                fix="number the classes from 0 without gaps",
            )
        names = [names[index] for index in range(len(names))]
    if not names:
        raise DataError(f"{path}: names is empty", fix="list the class names in the order of their ids")
    if config.nc is not None and config.nc != len(names):
        raise DataError(f"{path}: nc is {config.nc}, but names has {len(names)} entries", fix="correct nc")
    return tuple(names)


def _root(path: Path, config: _DataYaml) -> Path:
    root = absolute(path.parent / (config.path or "."))
    if not root.is_dir():
        raise DataError(
            f"{path}: path: {config.path} is not a folder (looked for {root})",
            fix=f"set it relative to {path.parent}, for example  path: .",
        )
    return root


def _images(path: Path, config: _DataYaml, root: Path, split: str) -> list[_Image]:
    entries = getattr(config, split) if split in SPLITS else None
    if not entries:
        raise no_split(path, split, [name for name in SPLITS if getattr(config, name)])
    paths: dict[Path, None] = {}
    for entry in entries:
        paths.update(dict.fromkeys(_entry_images(path, root, entry)))
    if not paths:
        raise DataError(f"{path}: split {split!r} ({', '.join(entries)}) holds no images")
    images = [_Image(key_of(p, root), p, _labels_path(p)) for p in paths]
    return sorted(images, key=lambda image: image.key)


def _entry_images(path: Path, root: Path, entry: str) -> list[Path]:
    place = absolute(root / entry)
    if not place.exists() and entry.startswith("../"):
        # Roboflow's exports say ../train/images and mean train/images, and Ultralytics takes it so.
        place = absolute(root / entry.removeprefix("../"))
    if place.is_dir():
        return list_images(place)
    if place.is_file() and place.suffix.lower() == ".txt":
        return _listed_images(place, root)
    raise DataError(
        f"{path} names {entry!r}, which is neither a folder nor a .txt list of images (looked for {place})",
        fix="correct the entry; it is relative to  path:  or, without it, to the file's own folder",
    )


def _listed_images(listing: Path, root: Path) -> list[Path]:
    lines = (line.strip() for line in read_text(listing, limit_mb=256).splitlines())
    paths = [_listed_image(listing, number, line, root) for number, line in enumerate(lines, 1) if line]
    require_files(paths, source=str(listing))
    return paths


def _listed_image(listing: Path, number: int, line: str, root: Path) -> Path:
    """An absolute path is the user's own choice; a relative one starts at the list or the root."""
    if Path(line).is_absolute():
        return absolute(line)
    beside = inside(listing.parent, line, source=f"{listing} line {number}")
    return absolute(beside if beside.is_file() else root / line)


def _labels_path(image: Path) -> Path:
    head, separator, tail = str(image).rpartition(f"{os.sep}images{os.sep}")
    moved = f"{head}{os.sep}labels{os.sep}{tail}" if separator else str(image)
    return Path(os.path.splitext(moved)[0] + ".txt")  # noqa: PTH122 (also for names with many dots)


def _samples(
    images: Sequence[_Image], rules: LabelRules, warnings: list[str], *, labels_required: bool
) -> tuple[tuple[Sample, ...], bool]:
    """Samples, and whether any of them has a label file."""
    samples: list[Sample] = []
    unlabelled: list[str] = []
    oddities: list[str] = []
    for image in images:
        labels = read_labels(image.path, image.labels, rules, tolerant=not labels_required)
        if labels.missing:
            unlabelled.append(image.key)
        oddities.extend(labels.oddities)
        samples.append(Sample(image.key, image.path, labels.truth))
    if len(unlabelled) == len(images):
        return tuple(Sample(s.key, s.path) for s in samples), False
    if unlabelled:
        warnings.append(
            f"{len(unlabelled)} of {len(images)} images have no label file and count as images "
            f"without objects: {listed(unlabelled)}"
        )
    if oddities:
        warnings.append(f"{len(oddities)} label rows were left out: {listed(oddities)}")
    return tuple(samples), True
