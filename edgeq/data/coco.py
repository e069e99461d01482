"""COCO's instances JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq.data.classes import are_placeholders, matching_indices
from edgeq.data.files import absolute, first_holding, first_problem, inside, listed, require_files
from edgeq.errors import DataError
from edgeq.types import Dataset, DetectionTruth, Sample, Task

__all__ = ["open_coco"]

_MAX_BYTES = 2 << 30
_OVERHANG_PX = 1.0

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Id = int | str


class _Image(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: _Id
    file_name: str
    width: int | None = None
    height: int | None = None


class _Annotation(BaseModel):
    model_config = ConfigDict(extra="ignore")
    image_id: _Id
    category_id: int
    bbox: tuple[_Finite, _Finite, _Finite, _Finite]
    area: _Finite | None = None
    iscrowd: bool = False


class _Category(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: int
    name: str


class _Instances(BaseModel):
    model_config = ConfigDict(extra="ignore")
    images: list[_Image]
    annotations: list[_Annotation] | None = None
    categories: list[_Category]


def open_coco(
    path: Path,
    *,
    split: str,
    images: Path | None,
    class_names: Sequence[str] | None,
    labels_required: bool,
) -> Dataset:
    """Data set of a COCO JSON.

    Category ids (1 to 90 with gaps in COCO itself) become indices by their order. Where
    ``class_names`` hold every category by name, the indices are theirs instead. Crowds and COCO's own
    areas are kept, boxes stay as written.

    The images lie in ``images``, else in the first of these that holds one of them (R is the JSON's
    folder, or the one above if that is called ``annotations``; ``val2017`` is the last word of
    ``instances_val2017.json``): ``R/images/val2017``, ``R/val2017``, ``R/images/<split>``,
    ``R/<split>``, ``R/images``, ``R``, the JSON's own folder.

    Raises:
        DataError: the file, an entry of it, or an image that it names is wrong or missing.
    """
    content = _parse(path)
    names, index_of = _classes(path, content.categories, class_names)
    if content.annotations is None and labels_required:
        raise DataError(f"{path} has no annotations", fix="give an instances JSON with boxes")
    folder = _images_folder(path, content, split=split, images=images)
    by_image = _by_image(path, content, index_of)
    ordered = sorted(content.images, key=lambda image: image.file_name)
    paths = [inside(folder, image.file_name, source=str(path)) for image in ordered]
    require_files(paths, source=str(path))
    labelled = content.annotations is not None
    samples = tuple(
        Sample(
            image.file_name.replace("\\", "/"),
            file,
            _truth(by_image.get(image.id, []), index_of) if labelled else None,
        )
        for image, file in zip(ordered, paths, strict=True)
    )
    return Dataset(
        samples=samples,
        class_names=names,
        task=Task.DETECT if labelled else None,
        origin=str(path),
        split=split,
        warnings=tuple(_overhanging(content)),
    )


def _parse(path: Path) -> _Instances:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is over 2 GiB", fix="split it")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        content = _Instances.model_validate_json(data)
    except ValidationError as error:
        raise DataError(
            f"{path} is not a COCO instances JSON: {first_problem(error)}",
            fix="it needs images, annotations and categories; see https://cocodataset.org/#format-data",
        ) from error
    if not content.images:
        raise DataError(f"{path} lists no images")
    _check_unique(path, "image id", [image.id for image in content.images])
    _check_unique(path, "file_name", [image.file_name for image in content.images])
    _check_unique(path, "category id", [category.id for category in content.categories])
    return content


def _check_unique(path: Path, what: str, values: Sequence[object]) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[object] = set()
    repeated = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
    raise DataError(f"{path}: the {what} {repeated!r} occurs more than once", fix="make them unique")


def _classes(
    path: Path, categories: Sequence[_Category], wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names, and the class index of each category id."""
    if not categories:
        raise DataError(f"{path} lists no categories")
    ordered = sorted(categories, key=lambda category: category.id)
    own = [category.name for category in ordered]
    if wanted is not None and not are_placeholders(wanted):
        indices = matching_indices(own, wanted)
        if indices is not None:
            return tuple(wanted), {c.id: i for c, i in zip(ordered, indices, strict=True)}
    return tuple(own), {category.id: index for index, category in enumerate(ordered)}


def _images_folder(path: Path, content: _Instances, *, split: str, images: Path | None) -> Path:
    if images is not None:
        folder = absolute(images)
        if not folder.is_dir():
            raise DataError(f"the images folder {images} does not exist")
        return folder
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    subset = path.stem.rpartition("_")[2]
    candidates = [
        root / "images" / subset,
        root / subset,
        root / "images" / split,
        root / split,
        root / "images",
        root,
        path.parent,
    ]
    names = sorted(image.file_name for image in content.images)
    for name in names:
        inside(root, name, source=str(path))
    folder_found = first_holding(candidates, names)
    if folder_found is None:
        tried = listed([str(c) for c in dict.fromkeys(candidates)], shown=len(candidates))
        raise DataError(
            f"the images of {path} were not found ({names[0]} is in none of: {tried})",
            fix="name the folder that holds them (--images FOLDER)",
        )
    return folder_found


def _by_image(path: Path, content: _Instances, index_of: dict[int, int]) -> dict[_Id, list[_Annotation]]:
    by_image: dict[_Id, list[_Annotation]] = defaultdict(list)
    known = {image.id for image in content.images}
    for number, annotation in enumerate(content.annotations or ()):
        place = f"{path}: annotations[{number}]"
        if annotation.image_id not in known:
            raise DataError(
                f"{place} belongs to image {annotation.image_id!r}, which is not in images",
                fix="add the image's entry or remove the annotation",
            )
        if annotation.category_id not in index_of:
            raise DataError(
                f"{place} has category {annotation.category_id}, which is not in categories",
                fix="add the category or correct the annotation",
            )
        if annotation.bbox[2] < 0 or annotation.bbox[3] < 0:
            raise DataError(f"{place} has a negative width or height", fix="bbox is [x, y, width, height]")
        by_image[annotation.image_id].append(annotation)
    _check_outside(path, content)
    return by_image


def _check_outside(path: Path, content: _Instances) -> None:
    for number, (annotation, width, height) in enumerate(_sized(content)):
        x, y, w, h = annotation.bbox
        if x >= width or y >= height or x + w < 0 or y + h < 0:
            raise DataError(
                f"{path}: annotations[{number}] with bbox {list(annotation.bbox)} lies outside of its image "
                f"({width} x {height})",
                fix="bbox is [x, y, width, height] in pixels, with x and y the top left corner",
            )


def _sized(content: _Instances) -> Iterator[tuple[_Annotation, float, float]]:
    """Each annotation with its image's width and height; infinite where the JSON does not say."""
    size_of = {i.id: (i.width or np.inf, i.height or np.inf) for i in content.images}
    for annotation in content.annotations or ():
        yield annotation, *size_of[annotation.image_id]


def _overhanging(content: _Instances) -> list[str]:
    count = sum(
        min(a.bbox[0], a.bbox[1], width - a.bbox[0] - a.bbox[2], height - a.bbox[1] - a.bbox[3])
        < -_OVERHANG_PX
        for a, width, height in _sized(content)
    )
    return [f"{count} boxes reach beyond their image by more than {_OVERHANG_PX:g} px"] if count else []


def _truth(annotations: Sequence[_Annotation], index_of: dict[int, int]) -> DetectionTruth:
    boxes = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    own_area = boxes[:, 2] * boxes[:, 3]
    boxes[:, 2:] += boxes[:, :2]
    given = np.array([np.nan if a.area is None else a.area for a in annotations], np.float64)
    return DetectionTruth(
        boxes_xyxy=boxes.astype(np.float32),
        class_ids=np.array([index_of[a.category_id] for a in annotations], np.int64),
        crowd=np.array([a.iscrowd for a in annotations], np.bool_),
        area_px2=np.where(np.isnan(given), own_area, given),
    )
