"""Histograms: nothing lost, and pieces that merge to what one go would have counted."""

from __future__ import annotations

from functools import reduce

import cv2
import numpy as np
import pytest

from edgeq.quantize.histogram import BIN_COUNT, Histogram, merge_histograms

RANDOM = np.random.default_rng(0)
SHAPES = {
    "gaussian": RANDOM.normal(size=5000),
    "laplace": RANDOM.laplace(size=5000) * 100,
    "negative-only": -RANDOM.exponential(size=5000) - 0.25,
    "far-from-zero": RANDOM.uniform(100, 101, 5000),
    "tiny": RANDOM.normal(size=5000) * 1e-9,
    "huge": RANDOM.normal(size=5000) * 1e12,
    "one-outlier": np.append(RANDOM.normal(size=5000), 3000.0),
    "two-values": np.repeat([-1.5, 2.0], 100),
    "zero": np.zeros(64),
}


def counted(values):
    values = np.asarray(values, np.float32)
    return Histogram.of(values, float(values.min()), float(values.max()))


def on_lattice(values, histogram):
    """What numpy counts in the bins that the histogram claims to have."""
    index = np.floor(np.asarray(values, np.float32).astype(np.float64) / histogram.width).astype(np.int64)
    return np.bincount(index - histogram.start, minlength=len(histogram.counts))


def same(first, second):
    assert (first.exponent, first.start) == (second.exponent, second.start)
    np.testing.assert_array_equal(first.counts, second.counts)


def trimmed(histogram, exponent):
    """Counts at one width, as {lattice index: count}."""
    coarse = histogram.coarsened(exponent)
    return {coarse.start + i: count for i, count in enumerate(coarse.counts) if count}


@pytest.mark.parametrize("name", SHAPES)
def test_every_value_is_in_the_bin_that_holds_it(name):
    histogram = counted(SHAPES[name])
    assert len(histogram.counts) <= BIN_COUNT
    np.testing.assert_array_equal(histogram.counts, on_lattice(SHAPES[name], histogram))


@pytest.mark.parametrize("value", [1.0, -3.0, 255.0, 1e-3, 1e20])
def test_a_constant_tensor_is_counted(value):
    histogram = counted(np.full(64, value))
    assert histogram.counts.sum() == 64
    centre = histogram.centers[int(np.argmax(histogram.counts))]
    assert centre == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(("low", "high"), [(1000, 1000.01), (5, 5.0001), (-70000, -69999.9)])
def test_a_narrow_range_far_from_zero_loses_nothing(low, high):
    values = np.random.default_rng(0).uniform(low, high, 1000).astype(np.float32)
    assert counted(values).counts.sum() == 1000


@pytest.mark.parametrize("shape", [lambda counts: counts.reshape(-1, 1), lambda counts: counts.reshape(-1)])
def test_both_shapes_of_opencv_are_read(monkeypatch, shape):
    """OpenCV 4 gives (bins, 1), OpenCV 5 gives (bins,)."""
    expected, original = counted(SHAPES["gaussian"]), cv2.calcHist
    monkeypatch.setattr(cv2, "calcHist", lambda *args: shape(original(*args)))
    got = counted(SHAPES["gaussian"])
    assert got.counts.ndim == 1
    same(got, expected)


@pytest.mark.parametrize("name", SHAPES)
def test_coarser_bins_hold_the_same_values(name):
    histogram = counted(SHAPES[name])
    for steps in (1, 2, 5, 13):
        coarse = histogram.coarsened(histogram.exponent + steps)
        assert coarse.exponent == histogram.exponent + steps
        np.testing.assert_array_equal(coarse.counts, on_lattice(SHAPES[name], coarse))


@pytest.mark.parametrize(
    "factors", [(1, 1, 1), (1, 10, 1000), (1000, 10, 1), (1e-6, 1, -50), (3, -3, 0.01)], ids=str
)
def test_pieces_merge_to_what_one_go_counts(factors):
    pieces = [np.float32(factor) * SHAPES["gaussian"].astype(np.float32) for factor in factors]
    merged = reduce(merge_histograms, map(counted, pieces))
    whole = counted(np.concatenate(pieces))
    assert len(merged.counts) <= BIN_COUNT
    assert merged.counts.sum() == whole.counts.sum() == sum(len(piece) for piece in pieces)
    assert abs(merged.exponent - whole.exponent) <= 1
    coarser = max(merged.exponent, whole.exponent)
    assert trimmed(merged, coarser) == trimmed(whole, coarser)


def test_the_way_of_merging_does_not_matter():
    random = np.random.default_rng(1)
    pieces = [counted(random.normal(size=300) * 10.0 ** random.integers(-3, 4)) for _ in range(24)]
    one_by_one = reduce(merge_histograms, pieces)
    same(reduce(merge_histograms, pieces[::-1]), one_by_one)
    halves = [reduce(merge_histograms, pieces[:9]), reduce(merge_histograms, pieces[9:])]
    same(merge_histograms(*halves), one_by_one)


def test_merging_with_a_wider_piece_keeps_its_arguments():
    small, large = counted(SHAPES["gaussian"]), counted(SHAPES["one-outlier"] * 50)
    before = small.counts.copy(), large.counts.copy()
    merged = merge_histograms(small, large)
    assert merged.exponent >= large.exponent > small.exponent
    np.testing.assert_array_equal(small.counts, before[0])
    np.testing.assert_array_equal(large.counts, before[1])
