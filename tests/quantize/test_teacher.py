"""Each layer's own error, with exact inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeq.quantize.auto import choose_grids
from edgeq.quantize.graph import constant_array, node_name
from edgeq.quantize.grid import Range, affine
from edgeq.quantize.insert import insert_qdq, model_bytes
from edgeq.quantize.observe import Observer
from edgeq.quantize.plan import TensorPlan
from edgeq.quantize.planner import build_plan
from edgeq.quantize.recipe import Precision
from edgeq.quantize.teacher import layer_errors, merge_errors
from edgeq.types import COMPUTE_OPS, IntegerType

from .nets import NETS, PLAIN, UINT8, images, normalised, quantise, residual_net, silu_net, size_of

RECIPE = replace(PLAIN, float_heads=True)


@pytest.fixture(scope="module", params=list(NETS))
def errors_of(request):
    model = normalised(NETS[request.param]())
    pictures = images(4, size=size_of(model))
    plan, qdq = quantise(model, RECIPE, pictures=pictures)
    return model, pictures, plan, qdq, layer_errors(model, qdq, pictures)


def test_every_layer_with_weights_has_an_error(errors_of):
    model, _, plan, _, errors = errors_of
    layers = {
        node_name(node)
        for node in model.graph
        if node.op_type in COMPUTE_OPS and constant_array(node.inputs[1]) is not None
    }
    assert set(errors) == layers
    for node in model.graph:
        name = node_name(node)
        if name in errors:
            assert 0 <= errors[name].noise < 0.1
            if plan.ops[name].precision is Precision.INT8:
                assert errors[name].noise > 0
                assert errors[name].mean_error.shape == (node.outputs[0].shape[1],)


def test_bias_correction_takes_the_mean_error_out_of_every_layer(errors_of):
    model, pictures, plan, _, errors = errors_of
    shifts = {name: -error.mean_error for name, error in errors.items()}
    _, corrected = quantise(model, RECIPE, pictures=pictures, shifts=shifts)
    after = layer_errors(model, corrected, pictures)
    for name, op in plan.ops.items():
        if op.precision is not Precision.INT8 or name not in errors:
            continue
        before_max, after_max = (np.abs(e[name].mean_error).max() for e in (errors, after))
        assert after_max <= 0.05 * before_max + 1e-5
        assert after[name].noise <= errors[name].noise * 1.001


def test_an_unquantised_model_has_no_error():
    model = normalised(residual_net())
    errors = layer_errors(model, model.clone(), images(2))
    assert all(error.noise < 1e-9 for error in errors.values())
    assert all(np.abs(error.mean_error).max() < 1e-5 for error in errors.values())


@pytest.mark.parametrize("make", [silu_net, residual_net])
def test_errors_do_not_accumulate(make):
    """Ruining the input ruins the first layer and leaves all others exactly as they were."""
    model, pictures = normalised(make()), images(3)
    statistics = Observer(model).observe(pictures)
    grids = choose_grids(model, UINT8, RECIPE, statistics, pictures)
    coarse = affine(Range(0.0, 20.0), IntegerType.UINT8, symmetric=False)
    ruined = {**grids, "images": TensorPlan("images", coarse, "by hand")}
    good, bad = (
        layer_errors(model, insert_qdq(model, build_plan(model, UINT8, RECIPE, g)), pictures)
        for g in (grids, ruined)
    )
    assert bad["stem"].noise > 20 * good["stem"].noise
    for name in good:
        if name != "stem":
            assert bad[name].noise == pytest.approx(good[name].noise, rel=1e-6)


def test_errors_of_parts_of_the_images_add_up_to_those_of_all():
    model, pictures = normalised(silu_net()), images(5)
    _, qdq = quantise(model, RECIPE)
    whole = layer_errors(model, qdq, pictures)
    parts = merge_errors(layer_errors(model, qdq, pictures[:2]), layer_errors(model, qdq, pictures[2:]))
    for name, error in whole.items():
        assert parts[name].image_count == 5
        assert parts[name].noise == pytest.approx(error.noise, rel=1e-5)
        np.testing.assert_allclose(parts[name].mean_error, error.mean_error, rtol=1e-4, atol=1e-7)
    assert merge_errors(whole, layer_errors(model, qdq, [])) == whole


def test_a_layer_with_float_input_and_weights_has_no_error():
    model = normalised(silu_net())
    _, qdq = quantise(model, RECIPE, kept_float={"depthwise": "x", "pointwise": "x"})
    errors = layer_errors(model, qdq, images(2))
    assert errors["pointwise"].noise < 1e-9
    assert errors["depthwise"].noise > 1e-7
    assert errors["stem"].noise > 1e-7


def test_the_noise_of_a_layer_grows_with_its_inputs_step():
    model, pictures = normalised(silu_net()), images(2)
    statistics = Observer(model).observe(pictures)
    grids = choose_grids(model, UINT8, RECIPE, statistics, pictures)
    noise = []
    for factor in (1, 4, 16):
        whole = grids["mul2_out"].grid.range
        wide = affine(Range(factor * whole.low, factor * whole.high), IntegerType.UINT8, symmetric=False)
        changed = {**grids, "mul2_out": TensorPlan("mul2_out", wide, "by hand")}
        qdq = insert_qdq(model, build_plan(model, UINT8, RECIPE, changed))
        noise.append(layer_errors(model, qdq, pictures)["depthwise"].noise)
    assert noise[0] < noise[1] / 4 < noise[2] / 16


def test_measuring_changes_neither_model():
    model = normalised(silu_net())
    _, qdq = quantise(model, RECIPE)
    before = model_bytes(model), model_bytes(qdq)
    seen = []
    layer_errors(model, qdq, images(2), progress=lambda *done: seen.append(done))
    assert (model_bytes(model), model_bytes(qdq)) == before
    assert seen == [(1, 2), (2, 2)]
