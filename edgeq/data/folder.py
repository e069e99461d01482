"""Folders of images, folders per class, and CSV tables of labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.data.classes import are_placeholders, normalize_name
from edgeq.data.files import (
    absolute,
    first_holding,
    inside,
    is_image_name,
    key_of,
    list_images,
    listed,
    read_text,
    require_files,
)
from edgeq.errors import DataError
from edgeq.types import Dataset, Sample, Task

__all__ = ["class_folders", "open_class_folders", "open_csv", "open_plain"]

_FILE_HEADERS = ("file", "filename", "file_name", "image", "image_path", "path")
_INDEX_HEADERS = ("class_index", "class_id", "label_index", "label_id", "index")
_NAME_HEADERS = ("label", "class", "class_name", "name", "target", "category")


def open_plain(folder: Path, *, split: str) -> Dataset:
    """Every image under the folder, without labels.

    Raises:
        DataError: there is none.
    """
    paths = list_images(folder)
    if not paths:
        raise DataError(f"{folder} holds no images", fix="JPEG, PNG, BMP, WebP and TIFF files are read")
    samples = tuple(Sample(key_of(path, folder), path) for path in paths)
    return Dataset(samples, class_names=(), task=None, origin=str(folder), split=split)


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Images per subfolder if the folder looks like one per class, else nothing.

    It does where images lie in two or more subfolders and none beside them.
    """
    if not folder.is_dir():
        return {}
    groups: dict[str, list[Path]] = {}
    for path in list_images(folder):
        parts = path.relative_to(folder).parts
        if len(parts) == 1:
            return {}
        groups.setdefault(parts[0], []).append(path)
    return groups if len(groups) > 1 else {}


def open_class_folders(
    folder: Path, groups: dict[str, list[Path]], *, split: str, class_names: Sequence[str] | None
) -> Dataset:
    """One class per subfolder, sorted by name; with ``class_names``, the index is the one there.

    Folders may be named by class or, where ``class_names`` are given, by class index.

    Raises:
        DataError: a folder is no class of the given ones.
    """
    ordered = sorted(groups)
    names = _known(class_names) or tuple(ordered)
    index_of = _indices(ordered, names, source=str(folder))
    samples = [Sample(key_of(p, folder), p, index_of[name]) for name in ordered for p in groups[name]]
    samples.sort(key=lambda sample: sample.key)
    return Dataset(tuple(samples), names, Task.CLASSIFY, str(folder), split)


def _known(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if class_names is None else tuple(class_names)


def _indices(labels: Sequence[str], names: Sequence[str], *, source: str) -> dict[str, int]:
    """Class index of each label: by name, or as a number where every label is one.

    Numbers win only where the names do not hold them, so that classes called 0, 1, 2 stay names.
    """
    by_name = {normalize_name(name): index for index, name in enumerate(names)}
    if all(normalize_name(label) in by_name for label in labels):
        return {label: by_name[normalize_name(label)] for label in labels}
    if all(label.isascii() and label.isdigit() for label in labels):
        beyond = [label for label in labels if int(label) >= len(names)]
        if beyond:
            raise DataError(
                f"{source} has class {listed(beyond)}; the classes are 0 to {len(names) - 1}",
                fix="class indices count from 0",
            )
        return {label: int(label) for label in labels}
    unknown = [label for label in labels if normalize_name(label) not in by_name]
    hint = " (the classes given have no names)" if are_placeholders(names) else ""
    raise DataError(
        f"{source} has {len(unknown)} classes that the model does not: {listed(unknown)}{hint}",
        fix="rename them to the model's class names, or give the model's class names",
    )


@dataclass(frozen=True)
class _Columns:
    """Where a CSV holds what, and its first data row."""

    file: int
    label: int
    first_row: int


def open_csv(path: Path, *, split: str, images: Path | None, class_names: Sequence[str] | None) -> Dataset:
    """Data set of a CSV with one image and its class per row.

    A header names the columns (``file`` or ``filename``, ``image``, ``path``; ``class_index`` or
    ``label``, ``class``, ``name``, ...); without a header they are the first two. Labels are class
    indices or class names. Bare indices without ``class_names`` leave the data set's names empty.
    Images lie in ``images``, else beside the CSV, in ``images/`` or in ``<split>/``.

    Raises:
        DataError: a row is wrong, a class is unknown, an image is missing or outside of its folder.
    """
    rows = list(csv.reader(read_text(path, limit_mb=256).splitlines()))
    columns = _columns(path, rows)
    entries: dict[str, str] = {}
    for number, row in enumerate(rows[columns.first_row :], columns.first_row + 1):
        if any(cell.strip() for cell in row):
            _add_row(path, number, row, columns, entries)
    if not entries:
        raise DataError(f"{path} lists no images")
    folder = _csv_images(path, sorted(entries), split=split, images=images)
    keys = sorted(entries)
    paths = [inside(folder, key, source=str(path)) for key in keys]
    require_files(paths, source=str(path))
    names, index_of = _csv_classes(path, entries, class_names)
    samples = tuple(
        Sample(key.replace("\\", "/"), file, index_of[entries[key]])
        for key, file in zip(keys, paths, strict=True)
    )
    return Dataset(samples, names, Task.CLASSIFY, str(path), split)


def _columns(path: Path, rows: Sequence[Sequence[str]]) -> _Columns:
    if not rows:
        raise DataError(f"{path} is empty", fix="write one row  file,label  per image")
    header = [cell.strip().lower() for cell in rows[0]]
    file = next((header.index(name) for name in _FILE_HEADERS if name in header), None)
    labels = (*_INDEX_HEADERS, *_NAME_HEADERS)
    label = next((header.index(name) for name in labels if name in header), None)
    if file is not None and label is not None:
        return _Columns(file, label, 1)
    if len(header) >= 2 and is_image_name(Path(rows[0][0].strip()).name):
        return _Columns(0, 1, 0)
    raise DataError(
        f"{path} line 1: no column for the image or none for its class in {', '.join(rows[0])[:80]!r}",
        fix="name the columns  file,label",
    )


def _add_row(path: Path, number: int, row: Sequence[str], columns: _Columns, entries: dict[str, str]) -> None:
    place = f"{path} line {number}"
    if len(row) <= max(columns.file, columns.label):
        raise DataError(f"{place}: {len(row)} columns are too few", fix="write  file,label  per image")
    file, label = row[columns.file].strip(), row[columns.label].strip()
    if not label:
        raise DataError(f"{place}: {file} has no class", fix="fill it in or remove the row")
    if entries.setdefault(file, label) != label:
        raise DataError(f"{place}: {file} is labelled {label!r} here and {entries[file]!r} before")


def _csv_images(path: Path, names: Sequence[str], *, split: str, images: Path | None) -> Path:
    if images is not None:
        folder = absolute(images)
        if not folder.is_dir():
            raise DataError(f"the images folder {images} does not exist")
        return folder
    candidates = [path.parent, path.parent / "images", path.parent / split]
    for name in names:
        inside(path.parent, name, source=str(path))
    found = first_holding(candidates, names)
    if found is None:
        tried = ", ".join(map(str, candidates))
        raise DataError(
            f"the images of {path} were not found ({names[0]} is in none of: {tried})",
            fix="name the folder that holds them (--images FOLDER)",
        )
    return found


def _csv_classes(
    path: Path, entries: dict[str, str], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    labels = sorted(set(entries.values()))
    known = _known(class_names)
    if known is not None:
        return known, _indices(labels, known, source=str(path))
    if all(label.isascii() and label.isdigit() for label in labels):
        return (), {label: int(label) for label in labels}
    return tuple(labels), {label: index for index, label in enumerate(labels)}
