import numpy as np
import pytest

from edgeq.benchmark.ratio import paired_ratio


def test_a_drift_of_the_machine_cancels():
    rng = np.random.default_rng(0)
    drift = np.linspace(1, 3, 400)
    base = (20e6 * drift * rng.normal(1, 0.01, 400)).astype(int)
    other = (10e6 * drift * rng.normal(1, 0.01, 400)).astype(int)
    ratio = paired_ratio(base, other)
    assert ratio.low <= 2.0 <= ratio.high
    assert ratio.high - ratio.low < 0.01


def test_same_seed_same_interval():
    base, other = list(range(100, 200)), list(range(50, 150))
    assert paired_ratio(base, other, seed=3) == paired_ratio(base, other, seed=3)


def test_equal_contestants_are_not_resolved():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(40):
        ratio = paired_ratio(rng.lognormal(16, 0.2, 150), rng.lognormal(16, 0.2, 150))
        held += ratio.low <= 1 <= ratio.high
    assert held >= 34


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="paired"):
        paired_ratio([1, 2], [1])
