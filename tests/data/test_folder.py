from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.data.dataset import open_dataset
from edgeq.errors import DataError
from edgeq.types import Task

from .conftest import make_picture, write_image

PICTURE = make_picture(1, width=16, height=12)


def fill(root: Path, *names: str) -> Path:
    for name in names:
        write_image(root / name, PICTURE)
    return root


def test_plain_folder_is_recursive_sorted_and_unlabelled(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "sub/deep/a.JPG", "a.jpg", ".hidden.jpg", ".cache/x.jpg")
    (tmp_path / "notes.txt").write_text("x")
    dataset = open_dataset(tmp_path, labels_required=False)
    assert [s.key for s in dataset.samples] == ["a.jpg", "b.png", "sub/deep/a.JPG"]
    assert dataset.task is None
    assert not dataset.labelled
    with pytest.raises(DataError, match="no labels that edgeq finds"):
        open_dataset(tmp_path)


def test_folder_link_that_leads_back(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(open_dataset(tmp_path, labels_required=False).samples) == 1


@pytest.mark.parametrize("labels_required", [True, False])
def test_empty_folder(tmp_path: Path, labels_required: bool) -> None:
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(tmp_path, labels_required=labels_required)


def test_missing_and_unknown_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set at"):
        open_dataset(tmp_path / "none")
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="not a data set that edgeq reads"):
        open_dataset(tmp_path / "a.jpg")
    fill(tmp_path / "images", "b.jpg")
    with pytest.raises(DataError, match="images folder was named"):
        open_dataset(tmp_path / "images", images=tmp_path)


def test_class_folders(tmp_path: Path) -> None:
    fill(tmp_path, "dog/1.jpg", "cat/2.jpg", "cat/more/1.jpg")
    dataset = open_dataset(tmp_path)
    assert dataset.task is Task.CLASSIFY
    assert dataset.class_names == ("cat", "dog")
    assert [(s.key, s.truth) for s in dataset.samples] == [
        ("cat/2.jpg", 0),
        ("cat/more/1.jpg", 0),
        ("dog/1.jpg", 1),
    ]


def test_class_folders_follow_the_model(tmp_path: Path) -> None:
    fill(tmp_path, "dog/1.jpg", "cat/2.jpg")
    dataset = open_dataset(tmp_path, class_names=["dog", "bird", "Cat"])
    assert [s.truth for s in dataset.samples] == [2, 0]
    with pytest.raises(DataError, match="1 classes that the model does not: cat"):
        open_dataset(tmp_path, class_names=["dog", "bird"])


def test_class_folders_below_the_split(tmp_path: Path) -> None:
    fill(tmp_path, "train/dog/1.jpg", "train/cat/1.jpg", "test/dog/2.jpg", "test/cat/2.jpg")
    assert len(open_dataset(tmp_path, split="train").samples) == 2
    with pytest.raises(DataError, match="no split 'val'; it has train, test"):
        open_dataset(tmp_path)


def test_numbered_class_folders_are_indices(tmp_path: Path) -> None:
    fill(tmp_path, "0/a.jpg", "10/a.jpg", "2/a.jpg")
    names = [f"name {index}x" for index in range(11)]
    assert [s.truth for s in open_dataset(tmp_path, class_names=names).samples] == [0, 10, 2]
    with pytest.raises(DataError, match="class 10; the classes are 0 to 2"):
        open_dataset(tmp_path, class_names=names[:3])


def test_subfolders_are_not_classes_when_labels_are_not_needed(tmp_path: Path) -> None:
    fill(tmp_path, "monday/1.jpg", "tuesday/2.jpg")
    assert open_dataset(tmp_path, labels_required=False).task is None
    assert (
        open_dataset(tmp_path, labels_required=False, class_names=["tuesday", "monday"]).task is Task.CLASSIFY
    )


@pytest.mark.parametrize(
    "text",
    [
        "file,class_index,name\na.jpg,3,cat\nb.jpg,0,dog\n",
        "label,Image\n3,a.jpg\n0,b.jpg\n",
        "\ufefffilename,label\r\na.jpg,3\r\nb.jpg,0\r\n",
        "b.jpg,0\na.jpg,3\n\n",
    ],
    ids=["header", "other-order", "bom-crlf", "no-header"],
)
def test_csv_with_indices(tmp_path: Path, text: str) -> None:
    fill(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
    dataset = open_dataset(tmp_path / "labels.csv")
    assert [(s.key, s.truth) for s in dataset.samples] == [("a.jpg", 3), ("b.jpg", 0)]
    assert dataset.class_names == ()
    assert open_dataset(tmp_path).samples == dataset.samples


def test_csv_with_names(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.jpg", "images/b.jpg")
    (tmp_path / "t.csv").write_text("file,label\na.jpg,dog\nb.jpg,cat\n")
    own = open_dataset(tmp_path / "t.csv")
    assert own.class_names == ("cat", "dog")
    assert [s.truth for s in own.samples] == [1, 0]
    assert [s.truth for s in open_dataset(tmp_path / "t.csv", class_names=["dog", "x", "cat"]).samples] == [
        0,
        2,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("foo,bar\n1,2\n", "line 1: no column"),
        ("file,label\n", "lists no images"),
        ("file,label\na.jpg\n", "line 2: 1 columns"),
        ("file,label\na.jpg,\n", "line 2: a.jpg has no class"),
        ("file,label\na.jpg,1\na.jpg,2\n", "line 3: a.jpg is labelled '2' here and '1' before"),
        ("file,label\na.jpg,1\ngone.jpg,2\n", "1 of 2 images that do not exist"),
        ("file,label\ngone.jpg,2\n", "were not found"),
        ("file,label\n../a.jpg,1\n", "not a path inside"),
        ("file,label\na.jpg,5\n", "class 5; the classes are 0 to 1"),
        ("file,label\na.jpg,-1\n", "does not: -1"),
        ("file,label\na.jpg,tapir\n", "does not: tapir"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str, message: str) -> None:
    fill(tmp_path, "a.jpg")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "t.csv", class_names=["cat", "dog"])


def test_imagenet_mini(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "imagenet-mini")
    assert len(dataset.samples) == 250
    assert sorted(s.truth for s in dataset.samples) == list(range(0, 1000, 4))  # type: ignore[type-var]
