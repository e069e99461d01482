"""Keeping a few blocks in float: to the budget, within the share, blocks whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeq.quantize.auto import choose_grids
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.observe import Observer
from edgeq.quantize.planner import build_plan
from edgeq.quantize.precision import block_of
from edgeq.quantize.predict import DropPredictor
from edgeq.quantize.recipe import Precision, RangeMethod, Recipe
from edgeq.quantize.tune import tune
from edgeq.types import HeadFamily

from .nets import UINT8, Net, classifier_net, float_model, images, normalised, quantise, yolov8_net

RECIPE = Recipe(range=RangeMethod.MINMAX, max_float_share=1.0)


class Stub:
    """Gives the drops that it was told, the last one for ever."""

    def __init__(self, *drops):
        self.drops, self.models = list(drops), []

    def predict(self, int8_model):
        self.models.append(int8_model)
        return self.drops[min(len(self.models), len(self.drops)) - 1]


def deep_net(layers=12, *, wide_last=False):
    net = Net(seed=9)
    x = net.silu(net.conv("images", 8, 3, stride=2, name="stem"))
    for index in range(layers):
        x = net.silu(net.conv(x, 8, 3, name=f"layer{index:02}"))
    return net.build(net.conv(x, 4, name="head"))


def tuned(predictor, recipe=RECIPE, *, proto=None, pictures=None):
    model = normalised(proto or deep_net())
    pictures = pictures or images(3)
    grids = choose_grids(model, UINT8, recipe, Observer(model).observe(pictures), pictures)
    progress = []

    def make_plan(kept, shifts):
        return build_plan(model, UINT8, recipe, grids, kept_float=kept, bias_shifts=shifts)

    got = tune(model, recipe, make_plan, pictures, predictor, progress=lambda *done: progress.append(done))
    return model, got, progress


def float_layers(plan):
    return {op.name for op in plan.ops.values() if op.reason.startswith("kept in float")}


def test_without_a_predictor_nothing_is_kept_in_float():
    _, got, _ = tuned(None)
    assert got.steps == ()
    assert got.chosen is None
    assert float_layers(got.plan) == set()
    assert set(got.errors) >= {"stem", "layer00", "head"}


def test_within_the_budget_at_once():
    stub = Stub(0.4)
    _, got, progress = tuned(stub)
    assert len(got.steps) == len(stub.models) == 1
    assert got.chosen is got.steps[0]
    assert got.chosen.kept_float == ()
    assert got.chosen.float_share == 0.0
    assert float_layers(got.plan) == set()
    assert progress[0][0] == 1


def test_it_stops_at_the_budget_and_takes_that_step():
    stub = Stub(9.0, 5.0, 0.5, 0.0)
    _, got, _ = tuned(stub)
    assert [step.predicted_drop_points for step in got.steps] == [9.0, 5.0, 0.5]
    assert got.chosen is got.steps[2]
    assert stub.models[2] == model_bytes(got.qdq)
    kept = {name for name in float_layers(got.plan) if got.plan.ops[name].op_type == "Conv"}
    assert kept == set(got.chosen.kept_float)


def test_each_step_keeps_more():
    _, got, progress = tuned(Stub(*(9.0 - step for step in range(20))))
    kept = [set(step.kept_float) for step in got.steps]
    shares = [step.float_share for step in got.steps]
    assert len(kept) > 3
    assert all(before < after for before, after in zip(kept, kept[1:], strict=False))
    assert shares == sorted(shares)
    assert [done for done, _ in progress] == list(range(1, len(got.steps) + 1))
    assert all(done <= total for done, total in progress)


def test_the_noisiest_layer_goes_first():
    _, got, _ = tuned(Stub(9.0, 0.0))
    int8 = [name for name, op in got.plan.ops.items() if op.op_type == "Conv" and name != "head"]
    assert max(int8, key=lambda name: got.errors[name].noise) in got.chosen.kept_float


def test_a_layer_goes_with_its_activation_and_its_producer():
    model, got, _ = tuned(Stub(9.0, 0.0))
    floats = {name for name, op in got.plan.ops.items() if op.precision is Precision.FLOAT}
    nodes = {node.name: node for node in model.graph}
    worst = max(got.chosen.kept_float, key=lambda name: got.errors[name].noise)
    for name in got.chosen.kept_float:
        assert {node.name for node in block_of(nodes[name])} <= floats
    order = [name for name in nodes if nodes[name].op_type == "Conv"]
    index = order.index(worst)
    if index:
        assert order[index - 1] in got.chosen.kept_float
    assert f"{got.errors[worst].noise:.2g}" in got.plan.ops[worst].reason


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5])
def test_the_share_of_multiplications_is_respected(share):
    _, got, _ = tuned(Stub(9.0), replace(RECIPE, max_float_share=share))
    assert all(step.float_share <= share + 1e-9 for step in got.steps)
    if share == 0.0:
        assert got.chosen.kept_float == ()


def test_a_worst_layer_that_is_too_dear_does_not_end_the_search():
    """The noisiest layer costs more than the share allows; the next ones do not."""
    net = Net(seed=10)
    weight = net.random.normal(size=(64, 3, 7, 7))
    weight[:, 0] *= 40  # a costly layer with bad weights: by far the noisiest
    x = net.silu(net.conv("images", 64, 7, name="dear", weight=weight / 10))
    x = net.op("MaxPool", x, kernel_shape=[8, 8], strides=[8, 8])
    for index in range(6):
        x = net.silu(net.conv(x, 64 if index == 0 else 8, 1, name=f"cheap{index}"))
        x = net.op("MaxPool", x, kernel_shape=[1, 1], strides=[1, 1])
    proto = net.build(net.conv(x, 4, name="head"))
    pictures = images(3)
    pictures = [picture * [[[[1.0]], [[0.02]], [[0.02]]]] for picture in pictures]
    pictures = [picture.astype("float32") for picture in pictures]
    _, got, _ = tuned(Stub(9.0), replace(RECIPE, max_float_share=0.15), proto=proto, pictures=pictures)
    ranking = sorted((n for n in got.errors if n != "head"), key=lambda n: -got.errors[n].noise)
    if ranking[0] != "dear":
        pytest.fail(f"the test's own premise: {ranking}")
    assert got.steps[-1].kept_float


def test_out_of_reach_it_takes_the_smallest_step_that_is_as_good_as_any():
    drops = [9.0, 3.0, 2.01, 2.0, 2.0, 2.0, 2.0, 2.0]
    _, got, _ = tuned(Stub(*drops))
    assert got.chosen is got.steps[2]


def test_without_a_budget_there_is_one_step():
    stub = Stub(9.0)
    _, got, _ = tuned(stub, replace(RECIPE, max_predicted_drop=None))
    assert len(stub.models) == 1
    assert got.chosen.kept_float == ()


def test_bias_correction_is_the_recipes():
    for wanted in (True, False):
        _, got, _ = tuned(None, replace(RECIPE, bias_correction=wanted))
        assert bool(got.plan.bias_shifts) is wanted
    assert "head" not in tuned(None)[1].plan.bias_shifts


def test_tuning_repeats_itself():
    first, second = (tuned(Stub(9.0, 3.0, 0.1))[1] for _ in range(2))
    assert model_bytes(first.qdq) == model_bytes(second.qdq)
    assert first.steps == second.steps


# The predictor itself


@pytest.mark.parametrize(("make", "family"), [(classifier_net, HeadFamily.CLASSIFIER), (yolov8_net, HeadFamily.YOLOV8)])
def test_the_float_model_against_itself_drops_nothing(make, family):
    model = float_model(make(), family=family, classes=10 if family is HeadFamily.CLASSIFIER else 2)
    predictor = DropPredictor(model.onnx_bytes, images(4), spec=model.input, head=model.head)
    assert predictor.predict(model.onnx_bytes) == pytest.approx(0.0, abs=1e-9)


def test_a_worse_classifier_is_predicted_to_drop_more():
    model = float_model(classifier_net(), classes=10)
    predictor = DropPredictor(model.onnx_bytes, images(24), spec=model.input, head=model.head)
    graph = normalised(classifier_net())
    _, good = quantise(graph)
    pictures = [picture * 60 for picture in images(2)]
    _, bad = quantise(graph, pictures=pictures)
    drops = [predictor.predict(model_bytes(each)) for each in (good, bad)]
    assert 0 <= drops[0] < drops[1] <= 100
