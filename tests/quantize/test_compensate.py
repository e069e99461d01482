"""Weights of prediction layers: rounded with errors that cancel on real inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeq.quantize.compensate import compensated_heads, compensated_rounding
from edgeq.quantize.pipeline import quantize
from edgeq.quantize.recipe import Granularity, RangeMethod
from edgeq.quantize.weights import quantize_weight
from edgeq.runtimes.openvino.scheme import scheme

from .nets import PLAIN, UINT8, calibration_set, float_model, images, normalised, silu_net

ROUNDING = {"granularity": Granularity.PER_CHANNEL, "method": RangeMethod.MINMAX, "bits": 8}


def correlated(channels=24, count=4000, seed=0):
    """(channels, count) inputs that are mixtures of a few causes, as features are."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(channels, 6)) @ rng.normal(size=(6, count)) + 0.1 * rng.normal(
        size=(channels, count)
    )


def output_error(weight, levels, scale, inputs):
    return float(np.mean(((levels * scale - weight) @ inputs) ** 2))


@pytest.mark.parametrize("bits", [8, 7])
def test_outputs_err_less_than_with_rounding_to_the_nearest(bits):
    weight = np.random.default_rng(1).normal(size=(10, 24)).astype(np.float32)
    nearest = quantize_weight(
        weight, axis=0, granularity=Granularity.PER_CHANNEL, method=RangeMethod.MINMAX, bits=bits
    )
    scale, limit = nearest.scale.reshape(-1, 1), 2 ** (bits - 1) - 1
    seen, other = correlated()[:, :2000], correlated()[:, 2000:]
    levels = compensated_rounding(weight, scale, seen @ seen.T / seen.shape[1], limit=limit)
    assert np.abs(levels).max() <= limit
    # On inputs that it has not seen: a fifth of the squared error at most.
    assert output_error(weight, levels, scale, other) < 0.2 * output_error(
        weight, nearest.values, scale, other
    )


def test_independent_inputs_are_rounded_to_the_nearest():
    weight = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    levels = compensated_rounding(weight, scale, np.eye(8), limit=127)
    assert np.array_equal(levels, np.rint(weight / scale))


def test_dead_inputs_do_no_harm():
    weight = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    moments = np.zeros((8, 8))
    levels = compensated_rounding(weight, np.abs(weight).max(axis=1, keepdims=True) / 127, moments, limit=127)
    assert np.abs(levels).max() == 127


def test_only_prediction_layers_are_touched():
    model = normalised(silu_net())
    assert set(compensated_heads(model, images(), **ROUNDING)) == {"head"}
    assert compensated_heads(model, [], **ROUNDING) == {}


def test_the_pass_runs_where_prediction_layers_are_int8_and_biases_float(tmp_path):
    model, calibration = float_model(silu_net()), calibration_set(tmp_path, 4)
    recipe = replace(PLAIN, float_heads=True, weight_compensation=True)
    assert set(quantize(model, calibration, scheme(), recipe, cache_folder=None).plan.weights) == {"head"}
    off = replace(recipe, weight_compensation=False)
    assert not quantize(model, calibration, scheme(), off, cache_folder=None).plan.weights
    assert not quantize(model, calibration, UINT8, recipe, cache_folder=None).plan.weights
