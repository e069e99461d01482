"""Which op is INT8, which float, and the reason that is given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeq.errors import RecipeError
from edgeq.quantize.graph import node_name, tail_nodes
from edgeq.quantize.precision import assign_precisions, block_of, matching_rules
from edgeq.quantize.recipe import Precision, RangeMethod, Recipe, Rule
from edgeq.quantize.scheme import Placement
from edgeq.quantize.work import work_shares
from edgeq.types import COMPUTE_OPS

from .nets import (
    NETS,
    UINT8,
    Net,
    attention_net,
    normalised,
    relu6_net,
    residual_net,
    silu_net,
    yolov8_net,
    yolox_net,
)

ALL = Recipe(float_heads=False)


def reasons(model, recipe=ALL, target=UINT8, **options):
    return {
        name: op.reason if op.precision is Precision.FLOAT else "INT8"
        for name, op in assign_precisions(model, target, recipe, **options).items()
    }


@pytest.mark.parametrize("name", NETS)
def test_every_op_has_a_precision_and_every_float_op_a_reason(name):
    model = normalised(NETS[name]())
    ops = assign_precisions(model, UINT8, Recipe())
    assert list(ops) == [node_name(node) for node in model.graph]
    tail = {node_name(node) for node in tail_nodes(model.graph)}
    for node in model.graph:
        op = ops[node_name(node)]
        assert (op.name, op.op_type) == (node_name(node), node.op_type)
        assert (op.precision is Precision.INT8) == (op.reason == "INT8")
        if op.precision is Precision.INT8:
            assert op.op_type in UINT8.integer_ops
            assert op.name not in tail


@pytest.mark.parametrize("name", NETS)
def test_every_convolution_is_int8_but_those_that_predict(name):
    model = normalised(NETS[name]())
    got = reasons(model, Recipe())
    floats = {
        n for n, why in got.items() if why != "INT8" and model_node(model, n).op_type in ("Conv", "Gemm")
    }
    # ONNX Runtime's integer Gemm gives its scores in float.
    predicting = {"classifier": set(), "yolov8": {"box.1", "cls.1", "dfl.conv"}}
    predicting["yolox"] = {"reg", "obj", "cls"}
    assert floats == predicting.get(name, {"head"})
    for layer in floats - {"dfl.conv"}:
        assert "prediction layer" in got[layer]


def model_node(model, name):
    return next(node for node in model.graph if node_name(node) == name)


def test_prediction_layers_follow_recipe_and_scheme():
    model = normalised(yolox_net())
    assert reasons(model, ALL)["reg"] == "INT8"
    wanting = replace(UINT8, float_heads=False)
    assert reasons(model, Recipe(), wanting)["reg"] == "INT8"


def test_the_cheapest_of_a_few_prediction_layers_stay_float_up_to_their_share():
    model = normalised(yolox_net())
    shares = work_shares(model.graph)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["obj"] < shares["cls"] < shares["reg"]

    def floats(share, **options):
        target = replace(
            UINT8, float_output_ops=frozenset({"Conv"}), few_float_heads=3, few_float_head_share=share,
        )  # fmt: skip
        got = reasons(model, Recipe(), replace(target, **options))
        return {name for name in ("obj", "cls", "reg") if "prediction layer" in got[name]}

    both = shares["obj"] + shares["cls"]
    assert floats(1.0) == {"obj", "cls", "reg"}
    assert floats(both) == {"obj", "cls"}
    assert floats(0.99 * both) == {"obj"}
    assert floats(0.0) == floats(1.0, few_float_heads=2) == set()
    assert floats(1.0, few_float_head_ops=frozenset({"Gemm"})) == set()


def test_products_of_activations_and_unknown_ops_say_so():
    got = reasons(normalised(attention_net()))
    assert got["scores"] == got["mix"] == "product of two activations"
    assert got["softmax"] == "onnxruntime has no integer Softmax"


def test_a_float_layer_takes_its_activation_along():
    model = normalised(silu_net())
    got = reasons(model, kept_float={"depthwise": "noisy"})
    activation = [node_name(node) for node in block_of(model_node(model, "depthwise"))][1:]
    assert len(activation) == 2
    assert got["depthwise"] == "noisy"
    assert {got[name] for name in activation} == {"activation of a float layer"}
    assert got["stem"] == got["pointwise"] == "INT8"


def test_nothing_is_rounded_between_float_layers():
    """Float islands: an op whose neighbours are all float gains nothing from INT8."""
    model = normalised(residual_net())
    got = reasons(model, kept_float=dict.fromkeys(("stem", "branch", "after"), "kept"))
    assert got["residual"] == "between float layers"


def test_helpers_do_not_keep_each_other_in_int8_between_float_layers():
    model = normalised(NETS["concat"]())
    got = reasons(model, kept_float=dict.fromkeys(("small", "large", "after"), "kept"))
    joined = next(name for name in got if name.startswith("concat"))
    assert {got["pool"], got[joined], got["up"]} == {"between float layers"}


def test_an_op_between_int8_layers_is_int8():
    got = reasons(normalised(NETS["concat"]()))
    assert set(got.values()) == {"INT8"}


# Rules


def test_rules_by_name_pattern_and_op_type():
    model = normalised(yolov8_net())
    got = reasons(model, ALL.with_rules(Rule("box.*", Precision.FLOAT)))
    assert got["box.0"] == got["box.1"] == "rule 'box.*'"
    assert got["cls.0"] == "INT8"
    model = normalised(NETS["concat"]())
    got = reasons(model, ALL.with_rules(Rule("op:MaxPool", Precision.FLOAT)))
    assert got["pool"] == "rule 'op:MaxPool'"


def test_a_later_rule_wins():
    model = normalised(silu_net())
    float_all, one_int8 = Rule("op:Conv", Precision.FLOAT), Rule("pointwise", Precision.INT8)
    got = reasons(model, ALL.with_rules(float_all, one_int8))
    assert got["pointwise"] == "INT8"
    assert got["depthwise"] == "rule 'op:Conv'"
    assert reasons(model, ALL.with_rules(one_int8, float_all))["pointwise"] == "rule 'op:Conv'"


def test_rules_merge_field_by_field():
    model = normalised(silu_net())
    merged = matching_rules(model, [Rule("stem", Precision.FLOAT), Rule("op:Conv", range=RangeMethod.MINMAX)])
    assert merged["stem"].precision is Precision.FLOAT
    assert merged["stem"].range is RangeMethod.MINMAX
    assert merged["head"].precision is None


def test_the_reason_names_the_rule_that_decided():
    model = normalised(silu_net())
    rules = (Rule("stem", Precision.FLOAT), Rule("op:Conv", range=RangeMethod.MINMAX))
    assert reasons(model, ALL.with_rules(*rules))["stem"] == "rule 'stem'"


def test_a_rule_goes_before_the_prediction_layers_and_tuning():
    model = normalised(silu_net())
    recipe = Recipe(rules=(Rule("head", Precision.INT8), Rule("stem", Precision.INT8)))
    got = reasons(model, recipe, kept_float={"stem": "noisy"})
    assert got["head"] == got["stem"] == "INT8"


def test_a_rule_does_not_give_a_runtime_kernels_that_it_lacks():
    model = normalised(attention_net())
    got = reasons(model, ALL.with_rules(Rule("softmax", Precision.INT8)))
    assert got["softmax"] == "onnxruntime has no integer Softmax"


@pytest.mark.parametrize(
    ("match", "near"),
    [("pointwize", "pointwise"), ("steem*", "stem"), ("op:Cnov", "op:Conv"), ("depthwse", "depthwise")],
)
def test_a_rule_that_matches_nothing_shows_the_nearest_names(match, near):
    with pytest.raises(RecipeError) as caught:
        reasons(normalised(silu_net()), ALL.with_rules(Rule(match, Precision.FLOAT)))
    assert repr(match) in caught.value.message
    assert near in (caught.value.fix or "")


def test_a_rule_that_matches_nothing_is_an_error_even_far_from_any_name():
    with pytest.raises(RecipeError, match="zzzzzz"):
        matching_rules(normalised(silu_net()), [Rule("zzzzzz", Precision.FLOAT)])


def test_a_name_with_brackets_matches_itself():
    """Exporters write names like ``layers[0].conv``; only * and ? are wild."""
    net = Net()
    x = net.relu(net.conv("images", 8, name="layers[0].conv"))
    model = normalised(net.build(net.conv(x, 2, name="head")))
    assert set(matching_rules(model, [Rule("layers[0].conv", Precision.FLOAT)])) == {"layers[0].conv"}


# Blocks


def test_a_block_is_a_convolution_with_its_activation():
    model = normalised(silu_net())
    for layer in ("stem", "depthwise", "pointwise"):
        block = block_of(model_node(model, layer))
        assert [node.op_type for node in block] == ["Conv", "Sigmoid", "Mul"]
    assert [node.op_type for node in block_of(model_node(model, "head"))] == ["Conv"]
    relu6 = normalised(relu6_net())
    assert [node.op_type for node in block_of(model_node(relu6, "stem"))] == ["Conv", "Clip"]
    assert [node.op_type for node in block_of(model_node(relu6, "project"))] == ["Conv"]


def test_only_compute_inputs_changes_no_precision():
    model = normalised(silu_net())
    conv_inputs = replace(UINT8, placement=Placement.COMPUTE_INPUTS)
    assert reasons(model, target=conv_inputs) == reasons(model)
    assert {model_node(model, n).op_type for n in reasons(model)} >= {"Conv", "Mul"}
    assert "Conv" in COMPUTE_OPS


def test_a_score_layer_of_a_fused_head_is_int8_beside_float_ones():
    model = normalised(yolox_net())
    got = reasons(model, Recipe(), score_layers={"cls"})
    assert got["cls"] == "INT8"
    assert "prediction layer" in got["reg"]
    assert "prediction layer" in got["obj"]


def test_a_rule_goes_before_a_score_layer():
    rule = Rule("cls", Precision.FLOAT)
    got = reasons(normalised(yolox_net()), Recipe(rules=(rule,)), score_layers={"cls"})
    assert got["cls"] == "rule 'cls'"
