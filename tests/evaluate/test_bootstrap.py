"""The paired bootstrap and what a drop means for a budget."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from edgeq.evaluate.bootstrap import detection_drop, hit_drop, resample_counts
from edgeq.evaluate.detection import score_detections
from edgeq.evaluate.drop import Drop, Verdict
from edgeq.evaluate.matching import match_images

from .conftest import random_set

NAMES = tuple("abcde")


def shaken(found, seed, *, noise_px):
    rng = np.random.default_rng(seed)
    return tuple(
        replace(d, boxes_xyxy=(d.boxes_xyxy + rng.normal(0, noise_px, d.boxes_xyxy.shape)).astype(np.float32))
        for d in found
    )


def table(found, truths):
    return match_images(found, truths, class_count=5)


def test_resampling_draws_as_many_images_as_there_are():
    counts = resample_counts(image_count=50, replicates=400, seed=3)
    assert (counts.sum(axis=1) == 50).all()
    assert counts.std(axis=0).mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(counts, resample_counts(image_count=50, replicates=400, seed=3))
    assert (counts != resample_counts(image_count=50, replicates=400, seed=4)).any()


def test_the_drop_is_the_difference_of_the_metrics():
    found, truths = random_set(0, images=60)
    worse = shaken(found, 1, noise_px=3)
    drop = detection_drop(table(found, truths), table(worse, truths), replicates=500, seed=0)
    before, after = (score_detections(d, truths, class_names=NAMES).map50_95 for d in (found, worse))
    assert drop.drop_points == pytest.approx((before - after) * 100, abs=1e-6)
    low, high = drop.drop_interval_points
    assert low < drop.drop_points < high
    assert high - low == pytest.approx(2 * 1.96 * drop.standard_error_points, rel=0.15)
    assert drop == detection_drop(table(found, truths), table(worse, truths), replicates=500, seed=0)


def test_pairing_narrows_the_interval():
    found, truths = random_set(0, images=60)
    worse = table(shaken(found, 1, noise_px=0.5), truths)
    paired = detection_drop(table(found, truths), worse, replicates=300, seed=0)
    other_found, other_truths = random_set(9, images=60)
    unpaired = detection_drop(table(other_found, other_truths), worse, replicates=300, seed=0)
    assert paired.standard_error_points < unpaired.standard_error_points / 2


def test_the_same_model_drops_nothing_for_certain():
    found, truths = random_set(2)
    drop = detection_drop(table(found, truths), table(found, truths), replicates=100, seed=0)
    assert (drop.drop_points, drop.drop_interval_points, drop.standard_error_points) == (0, (0, 0), 0)
    assert drop.against(0.0).verdict is Verdict.PASS


def test_the_standard_error_of_hits_is_the_analytic_one():
    rng = np.random.default_rng(0)
    before, after = rng.random(400) < 0.8, rng.random(400) < 0.7
    drop = hit_drop(before, after, replicates=4000, seed=0)
    difference = before.astype(float) - after
    assert drop.drop_points == pytest.approx(difference.mean() * 100)
    assert drop.standard_error_points == pytest.approx(difference.std() / np.sqrt(400) * 100, rel=0.05)
    assert (drop.metric, drop.image_count, drop.replicates) == ("top1", 400, 4000)


def test_a_thousand_replicates_of_the_cocos_size_are_quick():
    # 204 images, 80 classes, 300 detections each, both models: 1.3 s on two shared cores.
    found, truths = random_set(0, images=204, classes=80, spurious=550)
    assert np.mean([len(d.scores) for d in found]) > 250
    first = match_images(found, truths, class_count=80)
    second = match_images(shaken(found, 1, noise_px=2), truths, class_count=80)
    start = time.perf_counter_ns()
    detection_drop(first, second, replicates=1000, seed=0)
    assert (time.perf_counter_ns() - start) / 1e9 < 10


def drop_of(points, interval, error=0.3, images=200):
    return Drop("map50_95", points, interval, error, images, 1000, 0)


@pytest.mark.parametrize(
    ("points", "interval", "within", "verdict"),
    [
        (0.2, (-0.1, 0.4), True, Verdict.PASS),
        (0.9, (0.6, 1.2), False, Verdict.FAIL),
        (0.4, (0.1, 0.7), True, Verdict.NOT_RESOLVABLE),
        (0.6, (0.2, 0.9), False, Verdict.NOT_RESOLVABLE),
        (0.5, (0.5, 0.5), True, Verdict.PASS),
    ],
)
def test_verdicts_for_a_budget_of_half_a_point(points, interval, within, verdict):
    got = drop_of(points, interval).against(0.5)
    assert (got.within, got.verdict) == (within, verdict)
    assert (got.images_needed is None) == got.resolvable


def test_images_needed_grow_with_the_square_of_the_error():
    # The interval must shrink from 1.96 x 0.3 = 0.588 to 0.1: (5.88)^2 as many images.
    got = drop_of(0.4, (-0.19, 0.99)).against(0.5)
    assert got.images_needed == pytest.approx(200 * 5.88**2, abs=1)
    assert drop_of(0.5, (0.1, 0.9)).against(0.5).images_needed is None


def test_json_has_the_vocabularys_names():
    plain = drop_of(0.4, (0.1, 0.7)).to_json()
    assert plain["drop_points"] == 0.4
    assert plain["drop_interval_points"] == [0.1, 0.7]
    assert drop_of(0.4, (0.1, 0.7)).against(0.5).to_json()["verdict"] == "not-resolvable"
