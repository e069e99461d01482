from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeq.data.dataset import open_dataset
from edgeq.errors import DataError
from edgeq.types import DetectionTruth, Task

from .conftest import make_picture, with_exif, write_image

YoloSet = Callable[..., Path]
GOOD = "0 0.5 0.5 0.2 0.4\n"


def truth_of(file: Path, index: int = 0) -> DetectionTruth:
    truth = open_dataset(file).samples[index].truth
    assert isinstance(truth, DetectionTruth)
    return truth


def test_boxes_in_pixels(yolo_set: YoloSet) -> None:
    file = yolo_set({"b": "1 0.5 0.5 0.2 0.4\n\n0 0.1 0.1 0.2 0.2", "a": ""})
    dataset = open_dataset(file)
    assert dataset.task is Task.DETECT
    assert dataset.class_names == ("cat", "dog")
    assert [s.key for s in dataset.samples] == ["images/val/a.jpg", "images/val/b.jpg"]
    truth = truth_of(file, 1)
    np.testing.assert_allclose(truth.boxes_xyxy, [[80, 30, 120, 70], [0, 0, 40, 20]], atol=1e-4)
    assert truth.class_ids.tolist() == [1, 0]
    np.testing.assert_allclose(truth.area_px2, [1600, 800])
    assert not truth.crowd.any()
    assert truth_of(file, 0).boxes_xyxy.shape == (0, 4)
    assert dataset.warnings == ()


def test_folder_with_data_yaml_is_the_same(yolo_set: YoloSet) -> None:
    file = yolo_set({"a": GOOD})
    assert [s.key for s in open_dataset(file.parent).samples] == ["images/val/a.jpg"]


def test_exif_turns_the_image_size(yolo_set: YoloSet, tmp_path: Path) -> None:
    file = yolo_set({"a": "0 0.5 0.5 1 1"})
    image = tmp_path / "images/val/a.jpg"
    image.write_bytes(with_exif(image.read_bytes(), 6))
    assert truth_of(file).boxes_xyxy.tolist() == [[0, 0, 100, 200]]


def test_polygon_becomes_its_box(yolo_set: YoloSet) -> None:
    file = yolo_set({"a": "1 0.1 0.2 0.5 0.2 0.5 0.8 0.3 0.9"})
    np.testing.assert_allclose(truth_of(file).boxes_xyxy, [[20, 20, 100, 90]], atol=1e-4)


def test_pose_rows_keep_their_box(yolo_set: YoloSet) -> None:
    file = yolo_set({"a": "1 0.5 0.5 0.2 0.4 0.5 0.5 2 0 0 0"}, yaml="names: [a, b]\nkpt_shape: [2, 3]")
    np.testing.assert_allclose(truth_of(file).boxes_xyxy, [[80, 30, 120, 70]], atol=1e-4)


def test_missing_label_file_is_a_warning(yolo_set: YoloSet) -> None:
    dataset = open_dataset(yolo_set({"a": GOOD, "b": None}))
    assert len(dataset.samples) == 2
    assert "1 of 2 images have no label file" in dataset.warnings[0]
    assert "b.jpg" in dataset.warnings[0]


def test_no_labels_at_all(yolo_set: YoloSet) -> None:
    file = yolo_set({"a": None, "b": None})
    with pytest.raises(DataError, match=r"none of the 2 images .* expected at .*labels"):
        open_dataset(file)
    dataset = open_dataset(file, labels_required=False)
    assert dataset.task is None
    assert [s.truth for s in dataset.samples] == [None, None]


def test_repeated_and_flat_boxes_are_left_out_and_counted(yolo_set: YoloSet) -> None:
    file = yolo_set({"a": GOOD + GOOD + "0 0.5 0.5 0 0.1\n"})
    assert len(truth_of(file).class_ids) == 1
    (warning,) = open_dataset(file).warnings
    assert "2 label rows" in warning
    assert "line 2 (repeated)" in warning
    assert "line 3 (no area)" in warning


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "class id 2 is out of range; the data set has 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class id -1 is out of range"),
        ("0.5 0.5 0.5 0.1 0.1", "not a whole number"),
        ("nan 0.5 0.5 0.1 0.1", "not a whole number"),
        ("0 320 240 50 60", "coordinate 320 is outside"),
        ("0 0.5 0.5 0.1 nan", "coordinate nan is outside"),
        ("0 0.5 0.5 0.1", "4 columns"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 columns .*confidence"),
        ("cat 0.5 0.5 0.1 0.1", "not all of 'cat"),
        ("0", "1 columns"),
    ],
)
def test_wrong_rows_name_file_line_and_cure(yolo_set: YoloSet, row: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.txt line 2: .*{message}") as caught:
        open_dataset(yolo_set({"a": GOOD + row}))
    assert caught.value.fix


def test_small_overshoot_is_clipped(yolo_set: YoloSet) -> None:
    file = yolo_set({"a": "0 0.5 0.5 1.005 1.0"})
    assert truth_of(file).boxes_xyxy.tolist() == [[0, 0, 200, 100]]


def test_binary_label_file(yolo_set: YoloSet, tmp_path: Path) -> None:
    file = yolo_set({"a": GOOD})
    (tmp_path / "labels/val/a.txt").write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8"):
        open_dataset(file)


def test_unreadable_image_with_labels(yolo_set: YoloSet, tmp_path: Path) -> None:
    file = yolo_set({"a": GOOD, "b": GOOD})
    (tmp_path / "images/val/b.jpg").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"b\.jpg is not an image"):
        open_dataset(file)
    samples = open_dataset(file, labels_required=False).samples
    assert samples[1].truth is None
    assert samples[0].truth is not None


def test_lists_and_several_folders(yolo_set: YoloSet, tmp_path: Path) -> None:
    yolo_set({"a": GOOD, "b": GOOD})
    outside = tmp_path / "images/more/c.jpg"
    write_image(outside, make_picture(9))
    (tmp_path / "list.txt").write_text(f"./images/val/b.jpg\n{outside}\n\n")
    file = tmp_path / "other.yaml"
    file.write_text("val: [images/val, list.txt]\nnames: {0: cat, 1: dog}\nnc: 2\n")
    keys = [s.key for s in open_dataset(file).samples]
    assert keys == ["images/more/c.jpg", "images/val/a.jpg", "images/val/b.jpg"]


def test_list_that_names_missing_images_or_climbs_out(yolo_set: YoloSet, tmp_path: Path) -> None:
    file = yolo_set({"a": GOOD})
    file.write_text("val: list.txt\nnames: [a]\n")
    (tmp_path / "list.txt").write_text("\n".join(f"images/val/gone{i}.jpg" for i in range(7)))
    with pytest.raises(DataError, match=r"7 of 7 images that do not exist: .*gone0.* and 4 more"):
        open_dataset(file)
    (tmp_path / "list.txt").write_text("../../etc/passwd.jpg")
    with pytest.raises(DataError, match=r"list\.txt line 1 names .* not a path inside"):
        open_dataset(file)


def test_roboflow_style_parent_paths(yolo_set: YoloSet, tmp_path: Path) -> None:
    file = yolo_set({"a": GOOD})
    file.write_text("val: ../images/val\nnames: [a]\n")
    assert [s.key for s in open_dataset(file).samples] == ["images/val/a.jpg"]


def test_other_split_lists_what_is_there(yolo_set: YoloSet) -> None:
    file = yolo_set({"a": GOOD}, split="train")
    assert open_dataset(file, split="train").split == "train"
    for missing in ("val", "nonsense"):
        with pytest.raises(DataError, match=f"no split '{missing}'; it has train"):
            open_dataset(file, split=missing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val: [unclosed", "not valid YAML"),
        ("just text", "holds no keys"),
        ("val: images/val\nnames: {0: a, 2: b}", "keys of names must be 0 to 1"),
        ("val: images/val\nnames: [a, b]\nnc: 3", "nc is 3, but names has 2"),
        ("val: images/val\nnames: [no, yes]", "put it in quotes"),
        ("val: images/val\nnames: []", "names is empty"),
        ("val: 5\nnames: [a]", "val"),
        ("val: nowhere\nnames: [a]", "names 'nowhere', which is neither"),
        ("path: /no/such\nval: images/val\nnames: [a]", "path: /no/such is not a folder"),
        ("val: empty\nnames: [a]", "holds no images"),
        ("val: !!python/object/apply:os.system [id]\nnames: [a]", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_wrong_yaml(yolo_set: YoloSet, tmp_path: Path, text: str, message: str) -> None:
    file = yolo_set({"a": GOOD})
    (tmp_path / "empty").mkdir()
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(file)
    assert "pydantic" not in str(caught.value)


def test_nc_without_names_gives_placeholders(yolo_set: YoloSet) -> None:
    assert open_dataset(yolo_set({"a": GOOD}, yaml="nc: 3")).class_names == ("class0", "class1", "class2")


def test_5000_labels_open_in_two_seconds(tmp_path: Path) -> None:
    source = write_image(tmp_path / "images/val/00000.jpg", make_picture(1))
    (tmp_path / "labels/val").mkdir(parents=True)
    rows = "\n".join(f"0 0.{i} 0.5 0.1 0.1" for i in range(1, 9))
    for number in range(5000):
        if number:
            (tmp_path / f"images/val/{number:05}.jpg").hardlink_to(source)
        (tmp_path / f"labels/val/{number:05}.txt").write_text(rows)
    (tmp_path / "data.yaml").write_text("val: images/val\nnames: [a]")
    start = time.process_time()
    dataset = open_dataset(tmp_path)
    assert time.process_time() - start < 2.0
    assert len(dataset.samples) == 5000


def test_coco_mini(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "coco-mini")
    assert len(dataset.samples) == 204
    assert len(dataset.class_names) == 80
    assert sum(len(s.truth.class_ids) for s in dataset.samples) == 1786 - 21  # type: ignore[union-attr]
