"""NMS against the plain greedy loop."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgeq.model.nms import nms


def greedy(boxes, scores, class_ids, *, iou, max_detections):
    """The textbook loop, one pair at a time, in float64."""
    kept = []
    for j in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        for i in kept:
            if class_ids[i] != class_ids[j]:
                continue
            a, b = boxes[i].astype(float), boxes[j].astype(float)
            width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
            if union > 0 and width * height / union > iou:
                break
        else:
            kept.append(j)
    return kept[:max_detections]


def crowd_of_boxes(seed, *, count, class_count, levels=None):
    """Random boxes around a few centres; few score levels make many ties."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 400, (8, 2))[rng.integers(0, 8, count)] + rng.normal(0, 6, (count, 2))
    sizes = rng.uniform(20, 80, (count, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)
    scores = rng.random(count).astype(np.float32)
    if levels:
        scores = (np.ceil(scores * levels) / levels).astype(np.float32)
    return boxes, scores, rng.integers(0, class_count, count)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("class_count", "levels"), [(1, None), (5, None), (5, 7), (80, 3)])
def test_equals_the_greedy_loop(seed, class_count, levels):
    boxes, scores, ids = crowd_of_boxes(seed, count=600, class_count=class_count, levels=levels)
    for iou in (0.3, 0.65):
        for limit in (7, 10_000):
            expected = greedy(boxes, scores, ids, iou=iou, max_detections=limit)
            got = nms(boxes, scores, ids, iou=iou, max_detections=limit)
            assert got.tolist() == expected


def test_equal_boxes_and_scores_keep_the_first():
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.float32), (5, 1))
    scores = np.full(5, 0.5, np.float32)
    assert nms(boxes, scores, np.zeros(5, np.int64), iou=0.5, max_detections=9).tolist() == [0]
    assert nms(boxes, scores, np.arange(5), iou=0.5, max_detections=9).tolist() == [0, 1, 2, 3, 4]


def test_an_overlap_of_exactly_the_limit_stays():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert len(nms(boxes, scores, np.zeros(2, np.int64), iou=0.5, max_detections=9)) == 2
    assert len(nms(boxes, scores, np.zeros(2, np.int64), iou=0.49, max_detections=9)) == 1


def test_a_suppressed_box_suppresses_nothing():
    # The second goes because of the first; the third overlaps the second only.
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert nms(boxes, scores, np.zeros(3, np.int64), iou=0.4, max_detections=9).tolist() == [0, 2]


def test_nothing_in_nothing_out():
    empty = np.zeros((0, 4), np.float32)
    got = nms(empty, np.zeros(0, np.float32), np.zeros(0, np.int64), iou=0.5, max_detections=300)
    assert got.shape == (0,)
    assert got.dtype == np.int64


def test_boxes_without_area_neither_fail_nor_suppress():
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [9, 9, 3, 3]], np.float32)
    got = nms(boxes, np.array([0.3, 0.2, 0.1], np.float32), np.zeros(3, np.int64), iou=0.5, max_detections=9)
    assert got.tolist() == [0, 1, 2]


def test_thirty_thousand_candidates_take_less_than_a_second():
    # The worst case, everything on top of each other, is 60 to 150 ms; a loop over pairs takes minutes.
    boxes, scores, ids = crowd_of_boxes(0, count=30_000, class_count=80)
    start = time.perf_counter_ns()
    nms(boxes, scores, ids, iou=0.65, max_detections=300)
    assert (time.perf_counter_ns() - start) / 1e9 < 1
