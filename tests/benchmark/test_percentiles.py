import numpy as np
import pytest

from edgeq.benchmark.percentiles import early_stopping_rank, needed_samples, quantile


@pytest.mark.parametrize(("percent", "needed"), [(50, 11), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_needed_samples_are_loadgens(percent, needed):
    # 64 and 662 are the numbers that LoadGen itself prints for p90 and p99.
    assert needed_samples(percent) == needed
    assert early_stopping_rank(needed, percent) == 1
    assert early_stopping_rank(needed - 1, percent) == 0


def test_rank_is_the_greatest_that_the_binomial_bound_allows():
    from math import comb

    for count in (64, 100, 333, 1000):
        rank = early_stopping_rank(count, 90)

        def at_most(t, count=count):
            return sum(comb(count, k) * 0.1**k * 0.9 ** (count - k) for k in range(t + 1))

        assert at_most(rank) <= 0.01 < at_most(rank + 1)


def test_too_few_samples_quote_nothing():
    samples = np.arange(1, 662) * 1_000_000
    p99 = quantile(samples, 99)
    assert (p99.value_ms, p99.interval_ms, p99.early_stopping_ms) == (None, None, None)
    assert (p99.samples, p99.needed) == (661, 662)
    assert quantile(samples, 90).value_ms == 595


def test_value_is_a_sample_and_the_interval_holds_it():
    rng = np.random.default_rng(1)
    samples = (rng.lognormal(1, 0.3, 1000) * 1e6).astype(np.int64)
    for percent in (50, 90, 95, 99):
        entry = quantile(samples, percent)
        assert round(entry.value_ms * 1e6) in samples
        assert entry.low_ms <= entry.value_ms <= entry.high_ms
        assert entry.value_ms <= entry.early_stopping_ms <= samples.max() / 1e6


def test_known_ranks():
    # The classical 95 % interval of a median of 1000 samples: ranks 469 and 532.
    entry = quantile(np.arange(1, 1001) * 1_000_000, 50)
    assert (entry.value_ms, entry.low_ms, entry.high_ms) == (500, 469, 532)


@pytest.mark.parametrize("percent", [50, 90])
def test_coverage(percent):
    rng = np.random.default_rng(7)
    truth = -np.log(1 - percent / 100) * 1e9
    covered = below = 0
    for _ in range(600):
        entry = quantile((rng.exponential(1, 200) * 1e9).astype(np.int64), percent)
        covered += entry.low_ms * 1e6 <= truth <= entry.high_ms * 1e6
        below += entry.early_stopping_ms * 1e6 < truth
    assert covered / 600 >= 0.93
    assert below / 600 <= 0.02


@pytest.mark.parametrize("percent", [0, 100, -1])
def test_out_of_range(percent):
    with pytest.raises(ValueError, match="between 0 and 100"):
        quantile([1, 2], percent)
