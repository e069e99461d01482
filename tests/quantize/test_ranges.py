"""Range methods against brute force and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.quantize.grid import Range, affine, fake_quantize
from edgeq.quantize.histogram import Histogram, merge_histograms
from edgeq.quantize.ranges import choose_range, silu
from edgeq.quantize.ranges.entropy import entropy
from edgeq.quantize.ranges.mse import mse
from edgeq.quantize.ranges.percentile import percentile
from edgeq.quantize.ranges.tails import channel_ends
from edgeq.quantize.recipe import RangeMethod
from edgeq.quantize.statistics import ChannelStatistics, TensorStatistics
from edgeq.types import IntegerType

COUNT = 20_000
RANDOM = np.random.default_rng(0)
DATA = {
    "gaussian": RANDOM.normal(size=COUNT),
    "laplace": RANDOM.laplace(size=COUNT) * 3 + 0.5,
    "silu-output": silu(RANDOM.normal(size=COUNT) * 4),
    "relu-output": np.maximum(RANDOM.normal(size=COUNT) * 2, 0),
    "outlier": np.append(RANDOM.normal(size=COUNT), 60.0),
    "negative": -RANDOM.exponential(size=COUNT),
}


def statistics_of(*pictures):
    pictures = [np.asarray(values, np.float32) for values in pictures]
    histogram = None
    for values in pictures:
        piece = Histogram.of(values, float(values.min()), float(values.max()))
        histogram = piece if histogram is None else merge_histograms(histogram, piece)
    lows, highs = ([f(values) for values in pictures] for f in (np.min, np.max))
    return TensorStatistics(np.asarray(lows, np.float32), np.asarray(highs, np.float32), histogram, None)


def error_of(values, interval, *, symmetric=False, function=None, dtype=IntegerType.UINT8):
    function = function or (lambda x: x)
    grid = affine(interval, dtype, symmetric=symmetric)
    return float(np.mean((function(fake_quantize(values, grid)) - function(values)) ** 2))


def brute_force(values, *, symmetric=False, function=None):
    """Least error over a dense grid of both ends."""
    low, high = min(values.min(), 0), max(values.max(), 0)
    lows = [0.0] if low == 0 else low * np.geomspace(0.004, 1, 48)
    highs = [0.0] if high == 0 else high * np.geomspace(0.02, 1, 48)
    if symmetric:
        lows = [0.0]
        highs = max(-low, high) * np.geomspace(0.02, 1, 400)
    sample = values[:: max(len(values) // 4000, 1)]
    ranges = [Range(a, b) for a in lows for b in highs]
    best = sorted(ranges, key=lambda r: error_of(sample, r, symmetric=symmetric, function=function))[:20]
    return min(error_of(values, r, symmetric=symmetric, function=function) for r in best)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_mse_is_near_the_brute_force_optimum(name, symmetric):
    values = DATA[name]
    chosen = mse(statistics_of(values), dtype=IntegerType.UINT8, symmetric=symmetric)
    optimum = brute_force(values, symmetric=symmetric)
    # The search steps by 6.6 % of the end, which a symmetric grid of few clipped values feels.
    assert error_of(values, chosen, symmetric=symmetric) <= (1.10 if symmetric else 1.06) * optimum


@pytest.mark.parametrize("width", [1.0, 4.0, 12.0])
def test_mse_through_a_silu_is_near_the_brute_force_optimum(width):
    values = np.random.default_rng(3).normal(size=COUNT) * width - width / 3
    chosen = mse(statistics_of(values), dtype=IntegerType.UINT8, symmetric=False, activation=silu)
    plain = mse(statistics_of(values), dtype=IntegerType.UINT8, symmetric=False)
    optimum = brute_force(values, function=silu)
    assert error_of(values, chosen, function=silu) <= 1.08 * optimum
    if width > 1:
        # What a SiLU flattens needs no levels: the floor comes up, and the error down.
        assert chosen.low > plain.low
        assert error_of(values, chosen, function=silu) < 0.8 * error_of(values, plain, function=silu)


def test_the_bias_term_trades_clipping_for_rounding():
    values = DATA["outlier"]
    kinds = {"dtype": IntegerType.UINT8, "symmetric": False}
    plain, unbiased = (mse(statistics_of(values), **kinds, bias_weight=w) for w in (0.0, 1e4))
    bias = [
        abs(float(np.mean(fake_quantize(values, affine(r, IntegerType.UINT8, symmetric=False)) - values)))
        for r in (plain, unbiased)
    ]
    assert bias[1] < bias[0]
    assert unbiased.high >= plain.high


def test_weighted_clipping_is_traded_for_rounding():
    random = np.random.default_rng(5)
    # Background, and a few strong answers.
    values = np.concatenate([random.normal(size=COUNT), random.normal(size=COUNT // 100) * 8])
    kinds = {"dtype": IntegerType.INT8, "symmetric": True}
    plain, weighted = (mse(statistics_of(values), **kinds, clip_weight=w) for w in (1.0, 6.0))
    ends = [max(r.high, -r.low) for r in (plain, weighted)]
    clipped = [float(np.mean(np.maximum(np.abs(values) - end, 0.0) ** 2)) for end in ends]
    errors = [error_of(values, r, symmetric=True, dtype=IntegerType.INT8) for r in (plain, weighted)]
    assert ends[1] > 1.1 * ends[0]
    assert clipped[1] < 0.7 * clipped[0]
    assert errors[0] < errors[1]
    assert errors[1] + 5 * clipped[1] < errors[0] + 5 * clipped[0]


@pytest.mark.parametrize("name", DATA)
def test_minmax_clips_nothing(name):
    values = DATA[name].astype(np.float32)
    got = choose_range(
        RangeMethod.MINMAX,
        statistics_of(*np.array_split(values, 5)),
        dtype=IntegerType.UINT8,
        symmetric=False,
    )
    assert (got.low, got.high) == (values.min(), values.max())


@pytest.mark.parametrize("kept", [90.0, 99.0, 99.9])
@pytest.mark.parametrize("name", ["gaussian", "laplace", "negative", "outlier"])
def test_percentile_leaves_out_exactly_its_mass(name, kept):
    values = DATA[name].astype(np.float32)
    statistics = statistics_of(values)
    width, outside = statistics.histogram.width, (1 - kept / 100) / 2
    got = percentile(statistics, kept=kept)
    # To the bin: no more than the share is out, and one bin further in it would be.
    assert np.mean(values < got.low) <= outside + 1e-9
    assert np.mean(values < got.low + width) >= outside
    assert np.mean(values > got.high) <= outside + 1e-9
    assert np.mean(values >= got.high - width) >= outside


def test_percentile_of_a_skewed_tensor_keeps_the_observed_end():
    values = DATA["relu-output"].astype(np.float32)
    got = percentile(statistics_of(values), kept=99.0)
    assert got.low == 0.0
    assert got.high < np.quantile(values, 0.996)


def test_moving_average_is_the_mean_of_the_extremes_in_any_order():
    pictures = [np.random.default_rng(i).normal(size=500) * 10.0 ** (i % 3) for i in range(20)]
    kinds = {"dtype": IntegerType.UINT8, "symmetric": False}
    got = choose_range(RangeMethod.MOVING_AVERAGE, statistics_of(*pictures), **kinds)
    assert got.low == pytest.approx(np.mean([p.min() for p in pictures]), rel=1e-6)
    assert got.high == pytest.approx(np.mean([p.max() for p in pictures]), rel=1e-6)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(20)
        again = choose_range(
            RangeMethod.MOVING_AVERAGE, statistics_of(*(pictures[i] for i in order)), **kinds
        )
        assert again.low == pytest.approx(got.low, rel=1e-6)
        assert again.high == pytest.approx(got.high, rel=1e-6)


def test_entropy_clips_a_far_outlier_and_keeps_the_bulk():
    values = np.append(DATA["gaussian"], [100.0])
    got = entropy(statistics_of(values))
    bulk = np.quantile(DATA["gaussian"], [0.001, 0.999])
    assert got.low <= bulk[0]
    assert bulk[1] <= got.high <= 20.0


def test_entropy_keeps_a_uniform_range_whole():
    values = np.random.default_rng(0).uniform(-1, 1, 200_000)
    got = entropy(statistics_of(values))
    assert got.low < -0.95
    assert got.high > 0.95


@pytest.mark.parametrize("method", [m for m in RangeMethod if m is not RangeMethod.AUTO])
@pytest.mark.parametrize("name", DATA)
def test_every_method_stays_inside_what_was_observed(method, name):
    statistics = statistics_of(DATA[name])
    got = choose_range(method, statistics, dtype=IntegerType.INT8, symmetric=False)
    assert min(statistics.low, 0) <= got.low <= got.high <= max(statistics.high, 0)
    assert got.high > got.low


@pytest.mark.parametrize("method", [m for m in RangeMethod if m is not RangeMethod.AUTO])
def test_every_method_takes_a_dead_tensor(method):
    got = choose_range(method, statistics_of(np.zeros(10)), dtype=IntegerType.UINT8, symmetric=False)
    assert np.isfinite([got.low, got.high]).all()
    assert affine(got, IntegerType.UINT8, symmetric=False).scale < 1e-6


def test_auto_is_no_single_method():
    with pytest.raises(ValueError, match="auto"):
        choose_range(
            RangeMethod.AUTO, statistics_of(DATA["gaussian"]), dtype=IntegerType.UINT8, symmetric=False
        )


def test_silu_does_not_overflow():
    values = np.asarray([-1e6, -100.0, -1.0, 0.0, 1.0, 100.0, 1e6])
    with np.errstate(over="raise"):
        got = silu(values)
    np.testing.assert_allclose(got[2:5], values[2:5] / (1 + np.exp(-values[2:5])))
    assert got[-1] == 1e6
    assert abs(got[0]) < 1e-15


# Ends of channels


def seen_channels(values):
    """Statistics of (images, channels, positions)."""
    lows, highs = values.min(axis=2), values.max(axis=2)
    every = (lows.min(axis=0), highs.max(axis=0), lows.mean(axis=0), highs.mean(axis=0))
    return ChannelStatistics(*(array.astype(np.float32) for array in every))


def test_ends_of_channels_hold_all_but_one_value_in_a_million():
    random = np.random.default_rng(3)
    images, positions, channels = 64, 49, 400
    values = random.exponential(size=(images, channels, positions)) * np.geomspace(0.1, 10, channels)[:, None]
    seen = seen_channels(values)
    low, high = channel_ends(seen, images=images, positions=positions)
    # Exponential with scale b: one in a million lies above b ln(1e6).
    rare = np.geomspace(0.1, 10, channels) * np.log(1e6)
    assert np.median(high / rare) == pytest.approx(1.0, abs=0.1)
    assert np.median(seen.high / rare) < 0.7
    assert np.all(low <= seen.low)


@pytest.mark.parametrize(("images", "positions"), [(64, 200 * 200), (1, 49)])
def test_ends_stay_where_enough_was_seen_or_nothing_can_be_told(images, positions):
    values = np.random.default_rng(4).normal(size=(images, 3, 50))
    seen = seen_channels(values)
    low, high = channel_ends(seen, images=images, positions=positions)
    assert np.array_equal(low, seen.low)
    assert np.array_equal(high, seen.high)
