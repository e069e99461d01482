"""Top-1, top-5 and agreement."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.errors import DataError
from edgeq.evaluate.classification import agreement, label_ranks, score_classes


def test_top1_and_top5_by_hand():
    scores = np.array([[9, 8, 7, 6, 5, 4, 3], [3, 4, 5, 6, 7, 8, 9]], np.float32)
    got = score_classes(np.repeat(scores, 2, axis=0), np.array([0, 5, 6, 2]))
    assert (got.top1, got.top5) == (0.5, 0.75)


def test_ranks_equal_a_stable_sort():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (200, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 200)
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = (order == labels[:, None]).argmax(axis=1)
    np.testing.assert_array_equal(label_ranks(scores, labels), expected)
    assert score_classes(scores, labels).top1 == (scores.argmax(axis=1) == labels).mean()


def test_agreement():
    first = np.eye(4, dtype=np.float32)
    second = first.copy()
    second[3] = [1, 0, 0, 0]
    assert agreement(first, second) == 0.75


def test_no_images_is_an_error():
    with pytest.raises(DataError):
        score_classes(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
