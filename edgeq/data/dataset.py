"""Opening a data set in any of the forms that edgeq knows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgeq.data.classes import matching_indices
from edgeq.data.coco import open_coco
from edgeq.data.files import absolute, list_images, no_split
from edgeq.data.folder import class_folders, open_class_folders, open_csv, open_plain
from edgeq.data.yolo import open_yolo
from edgeq.errors import DataError
from edgeq.types import Dataset

__all__ = ["open_dataset"]

_FORMS = "a data.yaml, a COCO instances .json, a .csv of labels, or a folder"


def open_dataset(
    path: str | os.PathLike[str],
    *,
    split: str = "val",
    images: Path | None = None,
    class_names: Sequence[str] | None = None,
    labels_required: bool = True,
) -> Dataset:
    """Data set with its samples sorted by key; no image is decoded.

    What the path may be:

    * ``.yaml`` / ``.yml``: Ultralytics' data file, or a folder that holds a ``data.yaml``;
    * ``.json``: COCO instances, or a folder with ``annotations/instances_<split>*.json`` or Roboflow's
      ``<split>/_annotations.coco.json``;
    * ``.csv``: one image and class per row, or a folder that holds a ``labels.csv``;
    * a folder with one subfolder per class (also below ``<split>/``);
    * a folder of images without labels, for calibration only.

    Args:
        path: what the user named.
        split: ``train``, ``val`` or ``test``, where the form has splits.
        images: folder of the images, for JSON and CSV, where it is not beside them.
        class_names: the model's classes. Labels given by name get the index that they have here.
        labels_required: False for calibration: images without labels are welcome, an image that
            cannot be read is kept for ``check_calibration`` to name, and subfolders count as classes
            only if they are among ``class_names``.

    Raises:
        DataError: not one of these forms, or something in it is wrong; the message says what and where.
    """
    place = absolute(path)
    if not place.exists():
        raise DataError(f"there is no data set at {path}", fix=f"give {_FORMS}")
    source = _source_in(place, split) if place.is_dir() else place
    suffix = source.suffix.lower()
    if source.is_dir() or suffix in (".yaml", ".yml"):
        _refuse_images(images, source)
    if source.is_dir():
        return _open_folder(source, split=split, class_names=class_names, labels_required=labels_required)
    if suffix in (".yaml", ".yml"):
        return open_yolo(source, split=split, class_names=class_names, labels_required=labels_required)
    if suffix == ".json":
        return open_coco(
            source, split=split, images=images, class_names=class_names, labels_required=labels_required
        )
    if suffix == ".csv":
        return open_csv(source, split=split, images=images, class_names=class_names)
    raise DataError(f"{path} is not a data set that edgeq reads", fix=f"give {_FORMS}")


def _refuse_images(images: Path | None, source: Path) -> None:
    if images is not None:
        raise DataError(
            f"an images folder was named, but {source} already says where its images are",
            fix="name one for a COCO .json or a .csv only",
        )


def _source_in(folder: Path, split: str) -> Path:
    """The label file that speaks for the folder, or the folder itself."""
    for name in ("data.yaml", "data.yml"):
        if (folder / name).is_file():
            return folder / name
    coco = sorted((folder / "annotations").glob(f"instances_{split}*.json"))
    if len(coco) > 1:
        raise DataError(
            f"{folder} has several files for {split!r}: {', '.join(f.name for f in coco)}",
            fix="name one of them",
        )
    for file in (*coco, folder / split / "_annotations.coco.json", folder / "labels.csv"):
        if file.is_file():
            return file
    return folder


def _open_folder(
    folder: Path, *, split: str, class_names: Sequence[str] | None, labels_required: bool
) -> Dataset:
    """Class folders below ``<split>/`` or right here, else plain images."""
    for place in (folder / split, folder):
        groups = class_folders(place)
        matches = class_names is not None and matching_indices(sorted(groups), class_names) is not None
        if groups and (matches or (labels_required and not _looks_split(groups))):
            return open_class_folders(place, groups, split=split, class_names=class_names)
    if not labels_required:
        return open_plain(folder, split=split)
    if not list_images(folder):
        raise DataError(f"{folder} holds no images", fix=f"give {_FORMS} that holds some")
    splits = [name for name in ("train", "val", "test") if class_folders(folder / name)]
    if splits:
        raise no_split(folder, split, splits)
    raise DataError(
        f"{folder} holds images, but no labels that edgeq finds (no data.yaml, annotations/*.json, "
        "labels.csv or one subfolder per class), so nothing can be measured on it",
        fix="give the data.yaml or the COCO .json; a plain folder of images is good for calibration only",
    )


def _looks_split(groups: dict[str, list[Path]]) -> bool:
    """Whether the subfolders are splits rather than classes."""
    return all(name.startswith(("train", "val", "test")) for name in groups)
