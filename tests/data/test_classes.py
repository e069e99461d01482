from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.data.classes import are_placeholders, check_classes, matching_indices, placeholder_names
from edgeq.errors import DataError
from edgeq.types import Dataset, DetectionTruth, Sample, Task


def dataset(names: tuple[str, ...], *labels: int) -> Dataset:
    samples = tuple(Sample(f"{i}.jpg", Path(f"{i}.jpg"), label) for i, label in enumerate(labels))
    return Dataset(samples, names, Task.CLASSIFY, "set.csv")


def test_same_names_in_other_spelling_pass() -> None:
    check_classes(dataset(("Traffic_Light", "dog"), 0, 1), ["traffic light", "Dog"])


@pytest.mark.parametrize(
    ("own", "model", "message"),
    [
        (("cat", "dog"), ("cat", "dog", "bird"), "2 classes, the model has 3"),
        (("cat", "dog", "tapir"), ("cat", "dog"), "not in the model: tapir"),
        (("cat", "dog"), ("dog", "cat"), "another order"),
        (("cat", "dog"), ("cat", "bird"), "1: 'dog' against 'bird'"),
    ],
)
def test_differences_are_named(own: tuple[str, ...], model: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_classes(dataset(own), model)


def test_placeholders_count_as_nameless() -> None:
    check_classes(dataset(("cat", "dog"), 1), ["class0", "class1"])
    check_classes(dataset(("0", "1"), 1), ["cat", "dog"])
    with pytest.raises(DataError, match="2 classes, the model has 3"):
        check_classes(dataset(("cat", "dog")), placeholder_names(3))
    assert are_placeholders(["class_0", "Class 1", "2"])
    assert not are_placeholders(["class0", "mp3 player"])


def test_labels_beyond_the_model() -> None:
    check_classes(dataset((), 0, 9), placeholder_names(10))
    with pytest.raises(DataError, match=r"1\.jpg .* class 10; the model's classes are 0 to 9"):
        check_classes(dataset((), 0, 10), placeholder_names(10))


def test_boxes_beyond_the_model() -> None:
    truth = DetectionTruth(
        np.zeros((1, 4), np.float32), np.array([7]), np.zeros(1, np.bool_), np.zeros(1, np.float64)
    )
    one = Dataset((Sample("a.jpg", Path("a.jpg"), truth),), (), Task.DETECT, "set.json")
    check_classes(one, placeholder_names(8))
    with pytest.raises(DataError, match="class 7"):
        check_classes(one, placeholder_names(7))


def test_matching_by_name() -> None:
    assert matching_indices(["dog", "Cat"], ["cat", "dog", "bird"]) == (1, 0)
    assert matching_indices(["dog", "cow"], ["cat", "dog"]) is None
    assert matching_indices(["dog", "DOG"], ["cat", "dog"]) is None
