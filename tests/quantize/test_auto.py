"""Ranges chosen by the error that they cause at the readers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeq.quantize import auto
from edgeq.quantize.auto import choose_grids
from edgeq.quantize.graph import is_layer, node_name, tail_nodes
from edgeq.quantize.grid import Affine, Range, affine, fake_quantize
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.local_error import LocalModel, noise_to_signal
from edgeq.quantize.observe import Observer, session_with_outputs
from edgeq.quantize.planner import build_plan
from edgeq.quantize.precision import block_of
from edgeq.quantize.ranges.mse import mse
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.runtimes.openvino.scheme import scheme as openvino_scheme
from edgeq.runtimes.symmetric import symmetric_scheme
from edgeq.types import IntegerType

from .nets import (
    INT8,
    NETS,
    PLAIN,
    UINT8,
    Net,
    attention_net,
    images,
    normalised,
    quantise,
    run,
    silu_net,
    size_of,
    snr_db,
    yolov8_net,
)

AUTO = replace(PLAIN, range=RangeMethod.AUTO)


def values_of(model, picture):
    names = [value.name for node in model.graph for value in node.outputs]
    session, input_name, names = session_with_outputs(model, names)
    values = dict(zip(names, session.run(names, {input_name: picture}), strict=True))
    return values | {input_name: picture}


def value_named(model, name):
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return next(value for value in values if value.name == name)


def grid(low, high, dtype=IntegerType.UINT8):
    return affine(Range(low, high), dtype, symmetric=False)


# Noise


def test_noise_is_relative_to_the_variance_of_each_channel():
    random = np.random.default_rng(0)
    exact = random.normal(size=(1, 4, 64, 64)).astype(np.float32)
    error = random.normal(size=exact.shape).astype(np.float32) * 0.1
    base = noise_to_signal(exact, exact + error)
    assert base == pytest.approx(0.01, rel=0.05)
    assert noise_to_signal(exact * 50, (exact + error) * 50) == pytest.approx(base, rel=1e-3)
    assert noise_to_signal(exact + 3, exact + 3 + error) == pytest.approx(base, rel=1e-3)
    assert noise_to_signal(exact, exact) == 0.0


def test_a_small_channel_counts_as_much_as_a_large_one():
    random = np.random.default_rng(0)
    exact = random.normal(size=(1, 2, 64, 64)).astype(np.float32)
    exact[0, 1] *= 0.3
    first, second = exact.copy(), exact.copy()
    first[0, 0] += 0.1 * exact[0, 0].std()
    second[0, 1] += 0.1 * exact[0, 1].std()
    assert noise_to_signal(exact, first) == pytest.approx(noise_to_signal(exact, second), rel=0.2)


def test_a_constant_channel_gives_no_infinite_noise():
    exact = np.zeros((1, 3, 8, 8), np.float32)
    exact[0, 0] = np.random.default_rng(0).normal(size=(8, 8))
    assert np.isfinite(noise_to_signal(exact, exact + 0.01))
    assert np.isfinite(noise_to_signal(np.zeros_like(exact), exact))


# The small models


@pytest.mark.parametrize("dtype", [IntegerType.UINT8, IntegerType.INT8])
def test_the_small_model_computes_what_the_readers_compute(dtype):
    """Against the same thing by hand: round the tensor, run the rest of the network."""
    model, picture = normalised(silu_net()), images(1)[0]
    exact = values_of(model, picture)
    local = LocalModel(model, value_named(model, "images"), set(), dtype.value)
    chosen = grid(0.0, 0.5, dtype)
    rounded = values_of(model, np.asarray(fake_quantize(picture, chosen), np.float32))
    mul = next(node for node in model.graph if node.op_type == "Mul").outputs[0].name
    expected = noise_to_signal(exact[mul], rounded[mul])
    assert local.needed == ("images", mul)
    assert local.error(exact, [chosen])[0] == pytest.approx(expected, rel=1e-3)


def test_a_finer_grid_makes_less_noise_and_no_grid_none():
    model, picture = normalised(silu_net()), images(1)[0]
    local = LocalModel(model, value_named(model, "stem_out"), set(), "uint8")
    exact = values_of(model, picture)
    low, high = exact["stem_out"].min(), exact["stem_out"].max()
    grids = [grid(low, high), grid(low * 4, high * 4), grid(low * 16, high * 16)]
    errors = local.error(exact, grids)
    assert errors[0] < errors[1] < errors[2]
    # A uniform error: four times the step is sixteen times the power.
    assert errors[1] / errors[0] == pytest.approx(16, rel=0.35)


@pytest.mark.parametrize("name", NETS)
def test_every_tensor_has_a_small_model_with_a_finite_error(name):
    model = normalised(NETS[name]())
    pictures = images(2, size=size_of(model))
    tail = tail_nodes(model.graph)
    exact = values_of(model, pictures[0])
    for tensor, observed in Observer(model).observe(pictures).tensors.items():
        value = value_named(model, tensor)
        if value.producer() in tail:
            continue
        local = LocalModel(model, value, tail, "uint8")
        assert set(local.needed) <= set(exact)
        errors = local.error(exact, [grid(observed.low, observed.high), grid(-1e4, 1e4)])
        assert np.isfinite(errors).all()
        assert 0 <= errors[0] < errors[1]


def test_the_small_model_does_not_enter_the_tail():
    model = normalised(yolov8_net())
    tail = tail_nodes(model.graph)
    local = LocalModel(model, value_named(model, "box.1_out"), tail, "uint8")
    assert local.needed == ("box.1_out",)


# The choice


def outlier_pictures():
    """Ordinary pictures, and one with a few pixels that are fifty times too bright."""
    pictures = images(8, seed=2)
    bad = pictures[3].copy()
    bad[0, :, 5, 5:8] = 50.0
    return [*pictures[:3], bad, *pictures[4:]]


def test_choosing_by_measured_error_beats_minmax_where_there_are_outliers():
    model = normalised(silu_net())
    pictures, unseen = outlier_pictures(), images(4, seed=77)
    gains = []
    outputs = {}
    for recipe in (PLAIN, AUTO):
        statistics = Observer(model).observe(pictures)
        grids = choose_grids(model, UINT8, recipe, statistics, [pictures[0], pictures[5]])
        outputs[recipe.range] = grids
    for tensor in ("images", "stem_out"):
        minmax, auto = (outputs[method][tensor].grid for method in (RangeMethod.MINMAX, RangeMethod.AUTO))
        assert auto.range.high < 0.5 * minmax.range.high
    for recipe in (PLAIN, AUTO):
        _, qdq = quantise(model, recipe, pictures=pictures)
        gains.append(
            np.mean([snr_db(run(model_bytes(model), u)[0], run(model_bytes(qdq), u)[0]) for u in unseen])
        )
    assert gains[1] > gains[0] + 10


def test_clipping_weighs_more_on_symmetric_grids_that_no_depthwise_convolution_reads(monkeypatch):
    model = normalised(silu_net())
    statistics = Observer(model).observe(images(2))
    names = {id(tensor): name for name, tensor in statistics.tensors.items()}
    weights = {}

    def recorded(observed, **options):
        weights.setdefault(names[id(observed)], options.get("clip_weight"))
        return mse(observed, **options)

    monkeypatch.setattr(auto, "mse", recorded)
    choose_grids(model, UINT8, AUTO, statistics, [])
    assert set(weights.values()) == {1.0}
    weights.clear()
    choose_grids(model, symmetric_scheme("tensorrt"), AUTO, statistics, [])
    read = next(node for node in model.graph if node.name == "depthwise").inputs[0].name
    assert [name for name, weight in weights.items() if weight == 1.0] == [read]
    assert weights["images"] > 1.0


def test_no_method_makes_much_less_noise_than_what_auto_takes():
    model, pictures = normalised(silu_net()), outlier_pictures()
    statistics = Observer(model).observe(pictures)
    chosen = choose_grids(model, UINT8, AUTO, statistics, pictures[:2])
    methods = [m for m in RangeMethod if m not in (RangeMethod.AUTO, RangeMethod.ENTROPY)]
    for name in ("images", "stem_out", "mul2_out", "depthwise_out"):
        local = LocalModel(model, value_named(model, name), set(), "uint8")

        def noise(grids, local=local, name=name):
            return np.mean([local.error(values_of(model, p), [grids[name].grid])[0] for p in pictures[:2]])

        single = [choose_grids(model, UINT8, replace(PLAIN, range=m), statistics, []) for m in methods]
        # A challenger has to make 30 % less noise on the first image.
        assert noise(chosen) <= min(noise(grids) for grids in single) / 0.65 + 1e-7


def test_the_grid_of_a_sigmoid_is_fixed():
    model, pictures = normalised(attention_net()), images(2, size=16)
    statistics = Observer(model).observe(pictures)
    for target, zero in ((UINT8, 0), (INT8, -128)):
        grids = choose_grids(model, target, AUTO, statistics, pictures)
        sigmoid = next(node for node in model.graph if node.op_type == "Sigmoid").outputs[0].name
        assert grids[sigmoid].grid == Affine(1 / 256, zero, target.activation_dtype)
        assert grids[sigmoid].method == "fixed"
        softmax = grids["softmax_out"].grid
        assert softmax.range.high == pytest.approx(1.0, rel=1e-6)


def test_what_only_a_sigmoid_reads_needs_no_levels_where_that_is_flat():
    net = Net(seed=2)
    wide = net.conv("images", 8, 3, name="wide", weight=net.random.normal(size=(8, 3, 3, 3)) * 20)
    model = normalised(net.build(net.relu(net.conv(net.op("Sigmoid", wide), 4, name="head"))))
    pictures = images(2)
    statistics = Observer(model).observe(pictures)
    assert statistics.tensors[wide].high > 30
    chosen = choose_grids(model, INT8, AUTO, statistics, pictures)[wide].grid.range
    assert -15 < chosen.low < -3
    assert 3 < chosen.high < 15


def test_every_tensor_outside_the_tail_gets_a_grid():
    for make in NETS.values():
        model = normalised(make())
        pictures = images(2, size=size_of(model))
        statistics = Observer(model).observe(pictures)
        grids = choose_grids(model, UINT8, AUTO, statistics, pictures)
        tail = {value.name for node in tail_nodes(model.graph) for value in node.outputs}
        assert set(statistics.tensors) - tail <= set(grids)
        assert not tail & set(grids)


def test_choosing_does_not_change_the_model_and_repeats_itself():
    model, pictures = normalised(silu_net()), images(3)
    before = model_bytes(model)
    statistics = Observer(model).observe(pictures)
    first = choose_grids(model, UINT8, AUTO, statistics, pictures)
    assert model_bytes(model) == before
    assert choose_grids(model, UINT8, AUTO, statistics, pictures) == first


def test_progress_counts_the_tensors_and_parts_change_nothing(monkeypatch):
    model, pictures = normalised(silu_net()), images(3)
    seen = []
    statistics = Observer(model).observe(pictures)
    whole = choose_grids(model, UINT8, AUTO, statistics, pictures, progress=lambda *done: seen.append(done))
    count = seen[-1][1]
    assert seen == [(count, count)]
    monkeypatch.setattr(auto, "_TOGETHER_MB", 1e-9)
    seen.clear()
    assert choose_grids(model, UINT8, AUTO, statistics, pictures, progress=lambda *d: seen.append(d)) == whole
    assert seen == [(done, count) for done in range(1, count + 1)]


@pytest.mark.parametrize("name", NETS)
def test_no_plan_rounds_what_is_taken_for_the_inside_of_a_fusion(name):
    model = normalised(NETS[name]())
    statistics = Observer(model).observe(images(2, size=size_of(model)))
    scheme = openvino_scheme()
    recipe = Recipe(range=RangeMethod.MINMAX)
    grids = choose_grids(model, scheme, recipe, statistics, [])
    # Without their grids planning would fail, whichever layer is kept in float.
    inside = {n for n in grids if auto._stays_in_fusion(value_named(model, n), scheme)}
    rest = {name: plan for name, plan in grids.items() if name not in inside}
    layers = [node for node in model.graph if is_layer(node)]
    for kept in ([], *([layer] for layer in layers)):
        blocks = {node_name(node): "kept" for layer in kept for node in block_of(layer)}
        plan = build_plan(model, scheme, recipe, rest, kept_float=blocks)
        assert plan == build_plan(model, scheme, recipe, grids, kept_float=blocks)
        assert not inside & set(plan.tensors)
    assert inside or name in ("attention", "residual", "classifier")


def test_a_network_that_ends_in_a_long_region_is_judged_at_the_tensor():
    """No convolution within reach: the tensor's own error decides."""
    net = Net()
    x = net.conv("images", 8, 3, name="stem")
    y = x
    for _ in range(70):
        y = net.op("Abs", net.op("Neg", y))
    model = normalised(net.build(net.conv(y, 2, name="head")))
    assert sum(node.op_type == "Neg" for node in model.graph) > 60
    local = LocalModel(model, value_named(model, "stem_out"), set(), "uint8")
    assert local.needed == ("stem_out",)
    exact = values_of(model, images(1)[0])
    chosen = grid(-1.0, 1.0)
    expected = noise_to_signal(
        exact["stem_out"], np.asarray(fake_quantize(exact["stem_out"], chosen), np.float32)
    )
    assert local.error(exact, [chosen])[0] == pytest.approx(expected, rel=1e-6)
