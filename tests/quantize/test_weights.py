"""Weights: the error that the scale allows, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.quantize.recipe import Granularity, RangeMethod
from edgeq.quantize.weights import quantize_bias, quantize_weight

RANDOM = np.random.default_rng(0)
# Channel magnitudes of a real depthwise layer lie two decades apart.
WEIGHT = (RANDOM.laplace(size=(16, 8, 3, 3)) * np.geomspace(0.01, 1, 16)[:, None, None, None]).astype(
    np.float32
)


def restored(weight, quantised):
    if quantised.scale.ndim == 0:
        return quantised.values * quantised.scale
    shape = [-1 if i == quantised.axis else 1 for i in range(weight.ndim)]
    return quantised.values * quantised.scale.reshape(shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("granularity", list(Granularity))
def test_the_error_is_at_most_half_a_step(axis, granularity):
    got = quantize_weight(WEIGHT, axis=axis, granularity=granularity, method=RangeMethod.MINMAX)
    assert got.values.shape == WEIGHT.shape
    assert got.values.dtype == np.int8
    assert got.scale.dtype == np.float32
    assert got.scale.shape == ((WEIGHT.shape[axis],) if granularity is Granularity.PER_CHANNEL else ())
    step = restored(np.ones_like(WEIGHT), got) / np.where(got.values == 0, 1, got.values)
    error = np.abs(restored(WEIGHT, got) - WEIGHT)
    assert np.all(error <= np.where(got.values == 0, got.scale.max(), np.abs(step)) * 0.50001)
    assert np.abs(got.values.astype(int)).max() == 127


def test_a_scale_per_channel_is_better_in_every_channel():
    per = {
        kind: restored(WEIGHT, quantize_weight(WEIGHT, axis=0, granularity=kind, method=RangeMethod.MINMAX))
        for kind in Granularity
    }
    errors = {kind: np.sum((values - WEIGHT) ** 2, axis=(1, 2, 3)) for kind, values in per.items()}
    assert np.all(errors[Granularity.PER_CHANNEL][:-1] < errors[Granularity.PER_TENSOR][:-1])
    assert errors[Granularity.PER_CHANNEL].sum() < 0.5 * errors[Granularity.PER_TENSOR].sum()


@pytest.mark.parametrize("granularity", list(Granularity))
def test_mse_is_never_worse_than_minmax(granularity):
    errors = {}
    for method in (RangeMethod.MINMAX, RangeMethod.MSE):
        got = quantize_weight(WEIGHT, axis=0, granularity=granularity, method=method)
        errors[method] = np.sum((restored(WEIGHT, got).astype(np.float64) - WEIGHT) ** 2, axis=(1, 2, 3))
    assert errors[RangeMethod.MSE].sum() < errors[RangeMethod.MINMAX].sum()
    if granularity is Granularity.PER_CHANNEL:
        assert np.all(errors[RangeMethod.MSE] <= errors[RangeMethod.MINMAX] * (1 + 1e-6))


def test_the_axis_is_the_one_that_is_told():
    matrix = np.asarray([[1.0, 100.0], [2.0, 50.0]], np.float32)
    columns, rows = (
        quantize_weight(matrix, axis=axis, granularity=Granularity.PER_CHANNEL, method=RangeMethod.MINMAX)
        for axis in (1, 0)
    )
    np.testing.assert_allclose(columns.scale, np.asarray([2.0, 100.0]) / 127, rtol=1e-6)
    np.testing.assert_allclose(rows.scale, np.asarray([100.0, 50.0]) / 127, rtol=1e-6)


def test_a_dead_channel_has_a_scale_and_no_nan():
    weight = WEIGHT.copy()
    weight[3] = 0
    got = quantize_weight(weight, axis=0, granularity=Granularity.PER_CHANNEL, method=RangeMethod.MSE)
    assert np.all(got.scale > 0)
    assert not got.values[3].any()


def test_the_bias_is_rounded_to_its_scale():
    bias, scale = RANDOM.normal(size=100), np.full(100, 1e-4)
    got = quantize_bias(bias, scale)
    assert got.dtype == np.int32
    assert np.abs(got * scale - bias).max() <= 0.5e-4 * (1 + 1e-9)


def test_the_bias_saturates_instead_of_wrapping_round():
    got = quantize_bias(np.asarray([1.0, -1.0, 0.0]), np.asarray([1e-12, 1e-12, 1e-12]))
    assert got.tolist() == [2**31 - 1, -(2**31 - 1), 0]


def test_half_scales_are_float16s_own_and_clip_nothing():
    weight = np.random.default_rng(0).normal(size=(64, 8, 3, 3)).astype(np.float32)
    weight *= np.geomspace(1e-6, 10, 64).reshape(-1, 1, 1, 1).astype(np.float32)
    options = {"axis": 0, "granularity": Granularity.PER_CHANNEL, "method": RangeMethod.MINMAX}
    plain, half = quantize_weight(weight, **options), quantize_weight(weight, **options, half_scales=True)
    np.testing.assert_array_equal(half.scale, half.scale.astype(np.float16).astype(np.float32))
    assert (half.scale >= plain.scale).all()
    assert half.scale.min() >= np.finfo(np.float16).smallest_normal
    normal = plain.scale >= np.finfo(np.float16).smallest_normal
    assert (half.scale[normal] <= plain.scale[normal] * (1 + 2**-10)).all()
    assert np.abs(half.values.astype(int)).max() <= 127
