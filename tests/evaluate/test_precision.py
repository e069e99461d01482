"""Matching and average precision: equal to the evaluator's, for the data set and for any multiset of it."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.evaluate.detection import score_detections
from edgeq.evaluate.matching import match_image, match_images
from edgeq.evaluate.precision import average_precisions, mean_average_precision
from edgeq.types import Detections, DetectionTruth

from .conftest import random_set

NAMES = tuple("abcde")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_each_image_once_equals_the_evaluator(seed, ties):
    found, truths = random_set(seed, ties=ties)
    table = match_images(found, truths, class_count=5)
    expected = score_detections(found, truths, class_names=NAMES)
    once = np.ones((1, len(truths)), np.int64)
    assert mean_average_precision(table, once)[0] == pytest.approx(expected.map50_95, abs=1e-9)
    precision = average_precisions(table, once)[0]
    np.testing.assert_allclose(precision.mean(axis=1), [c.map50_95 for c in expected.per_class], atol=1e-9)
    np.testing.assert_allclose(precision[:, 0], [c.map50 for c in expected.per_class], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_multiset_equals_the_evaluator_on_copies_of_the_images(seed):
    found, truths = random_set(seed, images=25)
    table = match_images(found, truths, class_count=5)
    counts = np.random.default_rng(seed).multinomial(25, np.full(25, 1 / 25), size=6)
    got = mean_average_precision(table, counts)
    for row, value in zip(counts, got, strict=True):
        drawn = np.repeat(np.arange(25), row)
        expected = score_detections([found[i] for i in drawn], [truths[i] for i in drawn], class_names=NAMES)
        assert value == pytest.approx(expected.map50_95, abs=1e-9)


def test_a_class_without_boxes_in_a_multiset_is_left_out():
    box = np.array([[0, 0, 50, 50]], np.float32)
    one = np.array([0.9], np.float32)
    truths = [DetectionTruth(box, np.array([k]), np.array([False]), np.array([2500.0])) for k in (0, 1)]
    found = [Detections(box, one, np.array([0])), Detections(box, one, np.array([0]))]
    table = match_images(found, truths, class_count=3)
    got = average_precisions(table, np.array([[1, 1], [2, 0], [0, 1]]))[:, :, 0]
    np.testing.assert_allclose(got, [[1, 0, np.nan], [1, np.nan, np.nan], [np.nan, 0, np.nan]])
    np.testing.assert_allclose(mean_average_precision(table, np.array([[1, 1], [2, 0], [0, 1]])), [0.5, 1, 0])


def test_many_multisets_in_parts_equal_one_at_a_time(monkeypatch):
    found, truths = random_set(1)
    table = match_images(found, truths, class_count=5)
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=30)
    whole = mean_average_precision(table, counts)
    monkeypatch.setattr("edgeq.evaluate.precision._CELLS", 100)
    np.testing.assert_allclose(mean_average_precision(table, counts), whole, rtol=1e-12)


def test_a_crowd_takes_any_number_and_is_never_missed():
    crowd = DetectionTruth(
        np.array([[0, 0, 100, 100]], np.float32), np.array([0]), np.array([True]), np.array([1e4])
    )
    inside = np.array([[10, 10, 30, 30], [50, 50, 90, 90], [90, 90, 190, 190]], np.float32)
    found = Detections(inside, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64))
    matches = match_image(found, crowd, class_count=1)
    assert matches.positives.tolist() == [0]
    assert not matches.hits.any()
    assert matches.ignored[0].tolist() == [True, True, False]


def test_only_the_best_hundred_of_a_class_count():
    count = 150
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.float32), (count, 1))
    ids = np.repeat([0, 1], [120, 30])
    scores = np.linspace(0.1, 0.9, count, dtype=np.float32)
    empty = DetectionTruth(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0)
    )
    matches = match_image(Detections(boxes, scores, ids), empty, class_count=2)
    assert np.bincount(matches.class_ids).tolist() == [100, 30]
    assert matches.scores[matches.class_ids == 0].min() == scores[20]
