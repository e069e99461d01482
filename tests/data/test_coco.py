from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.data.dataset import open_dataset
from edgeq.errors import DataError
from edgeq.types import DetectionTruth, Task

from .conftest import make_picture, write_image

BASE: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "width": 200, "height": 100},
        {"id": 3, "file_name": "a.jpg", "width": 200, "height": 100},
    ],
    "annotations": [
        {"image_id": 7, "category_id": 90, "bbox": [10, 20, 30, 40], "area": 600.5, "iscrowd": 0},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 200, 100], "iscrowd": 1},
    ],
    "categories": [
        {"id": 90, "name": "toothbrush"},
        {"id": 1, "name": "person"},
        {"id": 13, "name": "stop sign"},
    ],
}


@pytest.fixture
def coco_set(tmp_path: Path) -> Callable[..., Path]:
    def make(
        change: Callable[[dict[str, Any]], object] = lambda _: None,
        *,
        images: str = "images/val2017",
        file: str = "annotations/instances_val2017.json",
    ) -> Path:
        content = copy.deepcopy(BASE)
        for number, name in enumerate(("a.jpg", "b.jpg")):
            write_image(tmp_path / images / name, make_picture(number, width=200, height=100))
        change(content)
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return make


CocoSet = Callable[..., Path]


def test_boxes_crowds_areas_and_dense_ids(coco_set: CocoSet) -> None:
    dataset = open_dataset(coco_set())
    assert dataset.task is Task.DETECT
    assert dataset.class_names == ("person", "stop sign", "toothbrush")
    assert [s.key for s in dataset.samples] == ["a.jpg", "b.jpg"]
    empty, truth = (s.truth for s in dataset.samples)
    assert isinstance(empty, DetectionTruth)
    assert isinstance(truth, DetectionTruth)
    assert empty.boxes_xyxy.shape == (0, 4)
    assert truth.boxes_xyxy.tolist() == [[10, 20, 40, 60], [0, 0, 200, 100]]
    assert truth.class_ids.tolist() == [2, 0]
    assert truth.crowd.tolist() == [False, True]
    assert truth.area_px2.tolist() == [600.5, 20000]


def test_names_of_the_model_order_the_classes(coco_set: CocoSet) -> None:
    names = ("Toothbrush", "cat", "stop_sign", "person")
    dataset = open_dataset(coco_set(), class_names=names)
    assert dataset.class_names == names
    assert dataset.samples[1].truth.class_ids.tolist() == [0, 3]  # type: ignore[union-attr]
    for other in (("person", "cat", "dog"), ("class0", "class1", "class2")):
        assert open_dataset(coco_set(), class_names=other).class_names[0] == "person"


@pytest.mark.parametrize(
    ("images", "file"),
    [
        ("images/val2017", "annotations/instances_val2017.json"),
        ("val2017", "annotations/instances_val2017.json"),
        ("images/val", "annotations/instances_val2017.json"),
        ("images", "labels.json"),
        (".", "annotations/x.json"),
        ("val", "val/_annotations.coco.json"),
    ],
)
def test_images_are_found_beside(coco_set: CocoSet, tmp_path: Path, images: str, file: str) -> None:
    path = coco_set(images=images, file=file)
    assert open_dataset(path).samples[0].path == tmp_path / images / "a.jpg"


def test_folder_with_annotations(coco_set: CocoSet, tmp_path: Path) -> None:
    coco_set()
    assert len(open_dataset(tmp_path).samples) == 2
    coco_set(file="annotations/instances_val_small.json")
    with pytest.raises(DataError, match="several files"):
        open_dataset(tmp_path)


def test_images_folder_given(coco_set: CocoSet, tmp_path: Path) -> None:
    path = coco_set(images="elsewhere")
    with pytest.raises(DataError, match=r"a\.jpg is in none of: .*val2017"):
        open_dataset(path)
    assert len(open_dataset(path, images=tmp_path / "elsewhere").samples) == 2
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(path, images=tmp_path / "nowhere")


def test_missing_images_are_counted(coco_set: CocoSet, tmp_path: Path) -> None:
    path = coco_set()
    (tmp_path / "images/val2017/b.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images that do not exist: .*b\.jpg"):
        open_dataset(path)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/passwd", "x/../../a.jpg", "C:\\a.jpg", "..\\a.jpg", "", "a\0.jpg"]
)
@pytest.mark.parametrize("given", [False, True])
def test_file_names_stay_inside(coco_set: CocoSet, tmp_path: Path, name: str, given: bool) -> None:
    path = coco_set(lambda c: c["images"][0].update(file_name=name))
    with pytest.raises(DataError, match="not a path inside"):
        open_dataset(path, images=tmp_path / "images/val2017" if given else None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][1].update(image_id=99), r"annotations\[1\] belongs to image 99"),
        (lambda c: c["annotations"][0].update(category_id=2), r"annotations\[0\] has category 2"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"annotations\[0\].bbox"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4]), "negative width"),
        (lambda c: c["annotations"][0].update(bbox=[900, 2, 3, 4]), "outside of its image"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "bbox"),
        (lambda c: c["annotations"][0].pop("image_id"), r"annotations\[0\]\.image_id is missing"),
        (lambda c: c.pop("categories"), "categories is missing"),
        (lambda c: c.pop("annotations"), "no annotations"),
        (lambda c: c.update(images=[]), "lists no images"),
        (lambda c: c.update(categories=[]), "lists no categories"),
        (lambda c: c["images"][0].update(id=3), "image id 3 occurs more than once"),
        (lambda c: c["images"][0].update(file_name="a.jpg"), "file_name 'a.jpg' occurs more"),
        (lambda c: c["categories"][0].update(id=1), "category id 1 occurs more"),
    ],
)
def test_wrong_entries(coco_set: CocoSet, change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(coco_set(change))
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "[" * 100_000])
def test_not_such_a_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json is not a COCO instances JSON"):
        open_dataset(tmp_path / "a.json")


def test_without_annotations_for_calibration(coco_set: CocoSet) -> None:
    dataset = open_dataset(coco_set(lambda c: c.pop("annotations")), labels_required=False)
    assert dataset.task is None
    assert len(dataset.samples) == 2


def test_overhang_is_a_warning(coco_set: CocoSet) -> None:
    path = coco_set(lambda c: c["annotations"][0].update(bbox=[190, 10, 30, 10]))
    assert "1 boxes reach beyond" in open_dataset(path).warnings[0]


def test_coco_mini_equals_its_yolo_form(shared_data: Path) -> None:
    coco = open_dataset(shared_data / "coco-mini/annotations/instances_val2017.json")
    yolo = open_dataset(shared_data / "coco-mini/data.yaml")
    assert coco.class_names == yolo.class_names
    assert sum(int(s.truth.crowd.sum()) for s in coco.samples) == 21  # type: ignore[union-attr]
    for left, right in zip(coco.samples, yolo.samples, strict=True):
        assert left.path == right.path
        assert isinstance(left.truth, DetectionTruth)
        assert isinstance(right.truth, DetectionTruth)
        real = ~left.truth.crowd
        assert sorted(left.truth.class_ids[real]) == sorted(right.truth.class_ids)
        for box, class_id in zip(left.truth.boxes_xyxy[real], left.truth.class_ids[real], strict=True):
            same = right.truth.boxes_xyxy[right.truth.class_ids == class_id]
            assert np.abs(same - box).max(axis=1).min() < 0.01
