"""Keeping a few blocks in float: to the budget, within the share, blocks whole."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgeq.quantize.auto import choose_grids
from edgeq.quantize.insert import insert_qdq, model_bytes
from edgeq.quantize.observe import Observer
from edgeq.quantize.planner import build_plan
from edgeq.quantize.precision import block_of
from edgeq.quantize.predict import DropPredictor
from edgeq.quantize.recipe import Precision, RangeMethod, Recipe
from edgeq.quantize.sensitivity import OutputNoise
from edgeq.quantize.tune import tune
from edgeq.types import HeadFamily

from .nets import (
    UINT8,
    Net,
    classifier_net,
    float_model,
    images,
    normalised,
    normalised_bytes,
    quantise,
    run,
    yolov8_net,
)

RECIPE = Recipe(range=RangeMethod.MINMAX, max_float_share=1.0, max_predicted_drop=0.5)


class Stub:
    """Gives the drops that it was told, the last one for ever."""

    def __init__(self, *drops):
        self.drops, self.models = list(drops), []

    def predict(self, int8_model, *, enough=None):
        self.models.append(int8_model)
        return self.drops[min(len(self.models), len(self.drops)) - 1]


def deep_net(layers=9):
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

    got = tune(
        model,
        recipe,
        make_plan,
        pictures,
        predictor,
        harm=lambda: OutputNoise(model, pictures),
        points_per_share=UINT8.points_per_float_share,
        progress=lambda *done: progress.append(done),
    )
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
    _, got, _ = tuned(stub)
    assert len(got.steps) == len(stub.models) == 1
    assert got.chosen is got.steps[0]
    assert got.chosen.kept_float == ()
    assert got.chosen.float_share == 0.0
    assert float_layers(got.plan) == set()


def test_it_stops_at_the_budget_and_takes_that_step():
    stub = Stub(9.0, 5.0, 0.5, 0.0)
    _, got, _ = tuned(stub)
    assert [step.predicted_drop_points for step in got.steps] == [9.0, 5.0, 0.5]
    assert got.chosen is got.steps[2]
    kept = {name for name in float_layers(got.plan) if got.plan.ops[name].op_type == "Conv"}
    assert kept == set(got.chosen.kept_float)


def test_a_step_within_the_budget_goes_before_a_smaller_one_just_over_it():
    _, got, _ = tuned(Stub(0.54, 0.5))
    assert got.chosen is got.steps[1]


def test_each_step_keeps_more():
    _, got, progress = tuned(Stub(*(9.0 - step for step in range(20))))
    kept = [set(step.kept_float) for step in got.steps]
    shares = [step.float_share for step in got.steps]
    assert len(kept) > 3
    assert all(before < after for before, after in itertools.pairwise(kept))
    assert shares == sorted(shares)
    # Rounds of ranking, each from one on.
    assert progress[0][0] == 1
    assert all(done <= total for done, total in progress)
    assert all(after[0] in (1, before[0] + 1) for before, after in itertools.pairwise(progress))


def test_the_layer_that_the_outputs_gain_most_from_goes_first():
    """Against trying every block in float by hand."""
    model, got, _ = tuned(Stub(9.0, 0.0))
    grids = choose_grids(model, UINT8, RECIPE, Observer(model).observe(images(3)), images(3))
    noise = OutputNoise(model, images(3))
    nodes = {node.name: node for node in model.graph}

    def noise_with(layers):
        kept = {node.name: "float" for layer in layers for node in block_of(nodes[layer])}
        return noise.of(insert_qdq(model, build_plan(model, UINT8, RECIPE, grids, kept_float=kept)))

    nothing, chosen = noise_with(()), noise_with(got.chosen.kept_float)
    order = [name for name in nodes if nodes[name].op_type == "Conv" and name != "head"]
    assert chosen < nothing
    worth = {
        pair: (nothing - noise_with(pair)) / (len(pair) / len(order)) for pair in itertools.pairwise(order)
    }
    best = max(worth.values())
    assert (nothing - chosen) / (len(got.chosen.kept_float) / len(order)) >= 0.8 * best


def test_a_layer_goes_with_its_activation_and_its_producer():
    model, got, _ = tuned(Stub(*[9.0] * 3, 0.0))
    nodes = {node.name: node for node in model.graph}
    floats = {name for name, op in got.plan.ops.items() if op.precision is Precision.FLOAT}
    for name in got.chosen.kept_float:
        assert {node.name for node in block_of(nodes[name])} <= floats
    order = [name for name in nodes if nodes[name].op_type == "Conv"]
    kept = [name in got.chosen.kept_float for name in order]
    # No float layer stands alone between INT8 layers, the stem apart, which has no producer, and the last one
    # before the head, which is float.
    for index in range(1, len(order) - 2):
        if kept[index]:
            assert kept[index - 1] or kept[index + 1]
    for name in got.chosen.kept_float:
        assert "kept in float for accuracy: noise" in got.plan.ops[name].reason


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5])
def test_the_share_of_multiplications_is_respected(share):
    _, got, _ = tuned(Stub(9.0), replace(RECIPE, max_float_share=share))
    assert all(step.float_share <= share + 1e-9 for step in got.steps)
    costs = multiplications(normalised(deep_net()))
    for step in got.steps:
        expected = sum(costs[name] for name in step.kept_float) / sum(costs.values())
        assert step.float_share == pytest.approx(expected)
    if share == 0.0:
        assert got.chosen.kept_float == ()


def multiplications(model):
    """Counted from the definition: outputs x kernel x input channels."""
    counts = {}
    for node in model.graph:
        if node.op_type == "Conv":
            _, channels, height, width = node.outputs[0].shape
            counts[node.name] = channels * height * width * int(np.prod(node.inputs[1].shape[1:]))
    return counts


def test_what_feeds_the_head_may_go_to_float_alone():
    """Its output is all that the head sees, and the head is float anyway."""
    _, got, _ = tuned(Stub(9.0, 0.0), replace(RECIPE, max_float_share=0.12))
    assert got.chosen.kept_float == ("layer08",)


def test_it_gives_up_after_plans_that_are_not_worth_their_float_layers():
    _, got, _ = tuned(Stub(9.0))
    assert len(got.steps) == 4
    assert got.chosen is got.steps[0]


def test_a_layer_that_is_too_dear_does_not_end_the_search():
    """With room for one pair of layers, the best pair that fits goes, though dearer ones rank first."""
    net = Net(seed=10)
    x = net.silu(net.conv("images", 32, 3, name="dear0", gain=8.0))
    x = net.silu(net.conv(x, 32, 3, name="dear1", gain=8.0))
    x = net.op("MaxPool", x, kernel_shape=[4, 4], strides=[4, 4])
    for index in range(4):
        x = net.silu(net.conv(x, 8, 3, name=f"cheap{index}", gain=3.0))
    proto = net.build(net.conv(x, 4, name="head"))
    _, got, _ = tuned(Stub(9.0), replace(RECIPE, max_float_share=0.05), proto=proto)
    kept = set().union(*(step.kept_float for step in got.steps))
    assert kept
    assert all(name.startswith("cheap") for name in kept)


def test_out_of_reach_it_takes_the_smallest_step_that_is_as_good_as_any():
    _, got, _ = tuned(Stub(9.0, 3.0, 2.04, 2.0, 2.0, 2.0, 2.0, 2.0))
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
        assert "head" not in got.plan.bias_shifts


def test_tuning_repeats_itself():
    first, second = (tuned(Stub(9.0, 0.1), proto=deep_net(4))[1] for _ in range(2))
    assert model_bytes(first.qdq) == model_bytes(second.qdq)
    assert first.steps == second.steps


# The predictor itself


@pytest.mark.parametrize(
    ("make", "family"), [(classifier_net, HeadFamily.CLASSIFIER), (yolov8_net, HeadFamily.YOLOV8)]
)
def test_the_float_model_against_itself_drops_nothing(make, family):
    model = float_model(make(), family=family, classes=10 if family is HeadFamily.CLASSIFIER else 2)
    predictor = DropPredictor(model.onnx_bytes, images(4), spec=model.input, head=model.head)
    assert predictor.predict(model.onnx_bytes) == pytest.approx(0.0, abs=1e-9)


def test_the_predicted_drop_of_a_classifier_grows_with_the_answers_that_change():
    model = float_model(classifier_net(), classes=10)
    pictures = [picture * scale for picture, scale in zip(images(24), np.geomspace(0.1, 30, 24), strict=True)]
    pictures = [picture.astype(np.float32) for picture in pictures]
    predictor = DropPredictor(model.onnx_bytes, pictures, spec=model.input, head=model.head)
    other = normalised_bytes(classifier_net(seed=40))
    tops = [[int(np.argmax(run(data, p)[0])) for p in pictures] for data in (model.onnx_bytes, other)]
    changed = float(np.mean(np.asarray(tops[0]) != np.asarray(tops[1])))
    assert changed > 0
    # One in four changes is a loss; see edgeq.quantize.predict.
    assert predictor.predict(other) == pytest.approx(25.0 * changed)


def test_half_of_the_images_are_enough_where_they_predict_little():
    model = float_model(classifier_net(), classes=10)
    pictures = images(6)
    # The second, fourth and sixth picture mean another class to the other model.
    other = normalised_bytes(classifier_net(seed=40))
    tops = [[int(np.argmax(run(data, p)[0])) for p in pictures] for data in (model.onnx_bytes, other)]
    same = [p for p, a, b in zip(pictures, *tops, strict=True) if a == b] or pictures[:1]
    unlike = [p for p, a, b in zip(pictures, *tops, strict=True) if a != b]
    assert unlike, "the two models agree everywhere"
    mixed = [entry for pair in zip(same * 3, unlike * 3, strict=False) for entry in pair]
    predictor = DropPredictor(model.onnx_bytes, mixed, spec=model.input, head=model.head)
    whole = predictor.predict(other)
    assert predictor.predict(other, enough=100.0) <= whole
    assert predictor.predict(other, enough=-1.0) == whole


def test_a_ruined_detector_is_predicted_to_lose_more_than_a_good_one():
    model = float_model(yolov8_net(), family=HeadFamily.YOLOV8, classes=2)
    predictor = DropPredictor(model.onnx_bytes, images(6), spec=model.input, head=model.head)
    graph = normalised(yolov8_net())
    drops = []
    for scale in (1, 30):
        pictures = [(picture * scale).astype(np.float32) for picture in images(3)]
        drops.append(predictor.predict(model_bytes(quantise(graph, pictures=pictures)[1])))
    assert 0 <= drops[0] < drops[1] <= 26


def test_without_a_confident_answer_nothing_is_predicted():
    proto = yolov8_net()
    for tensor in proto.graph.initializer:
        if tensor.name == "cls.1_b":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(2, -20, np.float32), tensor.name))
    model = float_model(proto, family=HeadFamily.YOLOV8, classes=2)
    predictor = DropPredictor(model.onnx_bytes, images(2), spec=model.input, head=model.head)
    assert predictor.predict(normalised_bytes(yolov8_net())) == 0.0


def test_layers_that_only_came_before_better_ones_are_left_out():
    """The first layer was not worth its cost; the plan that was good had it only because of the ranking."""
    _, got, _ = tuned(Stub(5.0, 4.999, 1.0, 9.0, 9.0, 9.0, 0.9))
    first, second = got.steps[1].kept_float, got.steps[2].kept_float
    assert got.chosen is got.steps[-1]
    assert got.chosen.predicted_drop_points == 0.9
    assert set(got.chosen.kept_float) == set(second) - set(first)
    assert float_layers(got.plan) & set(second) == set(got.chosen.kept_float)


def test_a_plan_whose_layers_were_all_worth_it_is_not_tried_again():
    _, got, _ = tuned(Stub(9.0, 5.0, 1.0, 8.0, 8.0, 8.0, 0.9))
    assert got.chosen is got.steps[2]
    assert all(step.predicted_drop_points != 0.9 for step in got.steps)
