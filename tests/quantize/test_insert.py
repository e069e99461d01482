"""The QDQ model: valid, unchanged at its ends, and integer where the plan says so."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeq.quantize.auto import choose_grids
from edgeq.quantize.graph import node_name
from edgeq.quantize.insert import insert_qdq, model_bytes
from edgeq.quantize.observe import Observer
from edgeq.quantize.plan import Plan
from edgeq.quantize.planner import build_plan
from edgeq.quantize.recipe import Granularity, Precision, RangeMethod, Recipe, Rule
from edgeq.quantize.scheme import Placement

from .nets import (
    INT8,
    NETS,
    PLAIN,
    UINT8,
    Net,
    attention_net,
    classifier_net,
    images,
    normalised,
    op_counts,
    optimised,
    quantise,
    relu6_net,
    residual_net,
    run,
    silu_net,
    size_of,
    snr_db,
)

QUANTISED = ("Conv", "Gemm")


class Qdq:
    """A QDQ model as tables."""

    def __init__(self, model):
        self.bytes = model_bytes(model)
        self.proto = onnx.load_from_string(self.bytes)
        self.nodes = {node.name: node for node in self.proto.graph.node}
        self.maker = {out: node for node in self.proto.graph.node for out in node.output}
        self.readers = defaultdict(list)
        for node in self.proto.graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.proto.graph.initializer}

    def source(self, name):
        """Op type of what made a value; None: input or constant."""
        return self.maker[name].op_type if name in self.maker else None

    def grid(self, name):
        """(scale, zero point) of the pair behind a value."""
        pair = next(node for node in self.readers[name] if node.op_type == "QuantizeLinear")
        return self.constants[pair.input[1]].tolist(), self.constants[pair.input[2]].tolist()


@pytest.fixture(scope="module", params=list(NETS))
def made(request):
    model = normalised(NETS[request.param]())
    recipe = replace(PLAIN, float_heads=True)
    return model, *quantise(model, recipe), request.param


def test_the_model_is_valid(made):
    onnx.checker.check_model(onnx.load_from_string(model_bytes(made[2])), full_check=True)


def test_inputs_and_outputs_keep_names_types_and_shapes(made):
    model, _, qdq, _ = made
    before, after = (onnx.load_from_string(model_bytes(m)).graph for m in (model, qdq))
    assert [value.SerializeToString() for value in after.input] == [
        value.SerializeToString() for value in before.input
    ]
    assert [value.name for value in after.output] == [value.name for value in before.output]
    picture = images(1, size=size_of(model), seed=9)[0]
    exact, rounded = run(model_bytes(model), picture), run(model_bytes(qdq), picture)
    assert [array.shape for array in rounded] == [array.shape for array in exact]
    assert all(snr_db(a, b) > 25 for a, b in zip(exact, rounded, strict=True))


def test_every_int8_convolution_becomes_an_integer_kernel(made):
    _, plan, qdq, _ = made
    counts = op_counts(optimised(model_bytes(qdq)))
    planned = [op for op in plan.ops.values() if op.op_type == "Conv"]
    int8 = sum(op.precision is Precision.INT8 for op in planned)
    assert int8 > 0
    assert counts["QLinearConv"] == int8
    assert sum(counts[op] for op in ("Conv", "FusedConv", "NhwcFusedConv")) == len(planned) - int8


def test_int8_activations_residuals_and_concats_become_integer_kernels(made):
    _, plan, qdq, _ = made
    counts = op_counts(optimised(model_bytes(qdq)))
    int8 = defaultdict(int)
    for op in plan.int8_ops:
        int8[op.op_type] += 1
    for op_type in ("Sigmoid", "Mul", "Add", "Concat"):
        assert counts[f"QLinear{op_type}"] == int8[op_type]


def test_every_int8_op_reads_and_writes_through_a_pair(made):
    model, plan, qdq, _ = made
    table = Qdq(qdq)
    for node in model.graph:
        name = node_name(node)
        if plan.ops[name].precision is not Precision.INT8:
            continue
        written = table.nodes[name]
        data = written.input[:2] if node.op_type in ("Conv", "Gemm") else written.input[:1]
        if node.op_type in ("Add", "Mul", "Concat"):
            data = written.input
        for value in data:
            fused = table.source(value) in ("Conv", "Gemm") and node.op_type in UINT8.fused_activations
            assert fused or table.source(value) == "DequantizeLinear", (name, value)


def test_no_pair_stands_where_float_meets_float(made):
    """A float op that reads what a float op made gets the exact value."""
    model, plan, qdq, _ = made
    table = Qdq(qdq)
    for node in model.graph:
        if plan.ops[node_name(node)].precision is Precision.INT8:
            continue
        for before, after in zip(node.inputs, table.nodes[node_name(node)].input, strict=True):
            producer = before.producer() if before is not None else None
            if producer is not None and plan.ops[node_name(producer)].precision is Precision.FLOAT:
                assert after == before.name


def test_no_pair_is_left_dangling(made):
    table = Qdq(made[2])
    outputs = {value.name for value in table.proto.graph.output}
    for node in table.proto.graph.node:
        assert outputs & set(node.output) or any(table.readers[name] for name in node.output), node.name


def test_ops_that_move_values_hand_their_grid_on(made):
    model, plan, qdq, _ = made
    table = Qdq(qdq)
    for node in model.graph:
        if plan.ops[node_name(node)].precision is not Precision.INT8:
            continue
        if node.op_type in UINT8.shared_scale_ops:
            for output in node.outputs:
                assert table.grid(output.name) == table.grid(node.inputs[0].name)
        if node.op_type == "Sigmoid":
            assert table.grid(node.outputs[0].name) == (pytest.approx(1 / 256), 0)


def test_nothing_is_changed_by_planning_and_inserting(made):
    model, plan, _, name = made
    fresh = normalised(NETS[name]())
    assert model_bytes(model) == model_bytes(fresh)
    before = model_bytes(model)
    insert_qdq(model, plan)
    assert model_bytes(model) == before


def test_the_same_plan_gives_the_same_bytes(made):
    model, plan, qdq, _ = made
    assert model_bytes(insert_qdq(model, plan)) == model_bytes(qdq)


@pytest.mark.parametrize("target", [UINT8, INT8], ids=["uint8", "int8"])
@pytest.mark.parametrize("seed", range(4))
def test_relu6_is_folded_into_its_convolution(seed, target):
    model = normalised(relu6_net(seed))
    _, qdq = quantise(model, replace(PLAIN, float_heads=True), target)
    table = Qdq(qdq)
    clips = [node for node in table.proto.graph.node if node.op_type == "Clip"]
    assert len(clips) == 3
    assert all(table.source(clip.input[0]) == "Conv" for clip in clips)
    counts = op_counts(optimised(table.bytes))
    assert counts["Clip"] == 0
    assert counts["QLinearConv"] == 4


def test_a_clipped_tensor_that_stays_under_six_is_folded_too():
    net = Net(seed=1)
    x = net.relu6(net.conv("images", 8, 3, name="stem", gain=0.5))
    model = normalised(net.build(net.conv(net.relu(net.conv(x, 8, name="after")), 2, name="head")))
    _, qdq = quantise(model, replace(PLAIN, float_heads=True))
    assert op_counts(optimised(model_bytes(qdq)))["QLinearConv"] == 2


@pytest.mark.parametrize("make", [classifier_net, silu_net])
def test_an_int8_layer_at_the_very_output_is_integer_too(make):
    """float_heads = false: what the plan calls INT8 has to run in INT8."""
    model = normalised(make())
    plan, qdq = quantise(model, PLAIN)
    last = list(plan.ops.values())[-1]
    assert last.precision is Precision.INT8
    counts = op_counts(optimised(model_bytes(qdq)))
    assert counts["Conv"] + counts["Gemm"] + counts["FusedConv"] == 0


@pytest.mark.parametrize("make", [classifier_net, silu_net])
def test_no_pair_dangles_at_the_very_output(make):
    _, qdq = quantise(normalised(make()), PLAIN)
    test_no_pair_is_left_dangling((None, None, qdq))


def test_weights_are_int8_with_zero_point_zero_and_biases_int32(made):
    _, plan, qdq, _ = made
    table = Qdq(qdq)
    for name, op in plan.ops.items():
        if op.precision is not Precision.INT8 or op.op_type not in QUANTISED:
            continue
        node = table.nodes[name]
        weight = table.maker[node.input[1]]
        values, scale, zero = (table.constants[entry] for entry in weight.input)
        assert values.dtype == np.int8
        assert values.min() >= -127
        assert not zero.any()
        assert scale.shape == (values.shape[0],)
        bias = table.maker[node.input[2]]
        assert table.constants[bias.input[0]].dtype == np.int32
        source = table.maker[node.input[0]]
        expected = np.float32(table.constants[source.input[1]]) * scale
        np.testing.assert_allclose(table.constants[bias.input[1]], expected, rtol=1e-6)


def test_per_tensor_weights_have_one_scale_and_still_fuse():
    model = normalised(silu_net())
    _, qdq = quantise(model, replace(PLAIN, granularity=Granularity.PER_TENSOR, float_heads=True))
    table = Qdq(qdq)
    weight = table.maker[table.nodes["pointwise"].input[1]]
    assert table.constants[weight.input[1]].shape == ()
    onnx.checker.check_model(table.proto, full_check=True)
    assert op_counts(optimised(table.bytes))["QLinearConv"] == 3


def test_float_biases_where_the_scheme_wants_them():
    model = normalised(silu_net())
    _, qdq = quantise(model, PLAIN, replace(UINT8, quantize_bias=False))
    table = Qdq(qdq)
    assert table.constants[table.nodes["stem"].input[2]].dtype == np.float32


def test_a_dead_channel_keeps_its_bias():
    """Pruned channels have zero weights and a bias that matters; int32 must not saturate on it."""
    net = Net(seed=1)
    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3)) / 5
    weight[2] = 0
    bias = np.linspace(-1, 1, 8)
    bias[2] = 3.0
    x = net.relu(net.conv("images", 8, 3, name="stem", weight=weight, bias=bias))
    model = normalised(net.build(net.op("Identity", net.conv(x, 4, name="head"))))
    _, qdq = quantise(model, replace(PLAIN, float_heads=True))
    widened = onnx.load_from_string(model_bytes(qdq))
    widened.graph.output.append(onnx.helper.make_tensor_value_info("stem_out", 1, None))
    values = run(widened, images(1)[0], ["stem_out"])[0]
    np.testing.assert_allclose(values[0, 2], 3.0, atol=0.02)


def test_bias_shifts_are_added_to_the_bias():
    model = normalised(silu_net())
    shift = np.linspace(-0.5, 0.5, 24).astype(np.float32)
    _, plain = quantise(model, PLAIN)
    _, shifted = quantise(model, PLAIN, shifts={"pointwise": shift})
    bias = {}
    for key, qdq in (("plain", plain), ("shifted", shifted)):
        table = Qdq(qdq)
        values, scale, _ = (table.constants[n] for n in table.maker[table.nodes["pointwise"].input[2]].input)
        bias[key] = values * scale
    np.testing.assert_allclose(bias["shifted"] - bias["plain"], shift, atol=1e-4)


def test_bias_shifts_make_a_bias_where_there_was_none():
    net = Net(seed=3)
    x = net.relu(net.conv("images", 8, 3, name="stem", bias=False))
    model = normalised(net.build(net.conv(x, 4, name="head")))
    recipe = replace(PLAIN, float_heads=True)
    plan, qdq = quantise(model, recipe, shifts={"stem": np.full(8, 0.25, np.float32)})
    _, plain = quantise(model, recipe)
    onnx.checker.check_model(onnx.load_from_string(model_bytes(qdq)), full_check=True)
    assert len(Qdq(qdq).nodes["stem"].input) == 3
    assert plan.ops["stem"].precision is Precision.INT8
    picture = images(1)[0]
    assert np.abs(run(model_bytes(qdq), picture)[0] - run(model_bytes(plain), picture)[0]).max() > 0.01


def matmul_net():
    """A matrix product without the addition that ONNX Runtime would fold into a Gemm."""
    net = Net(seed=8, size=8)
    x = net.relu(net.conv("images", 16, 3, name="stem"))
    x = net.op("Transpose", net.reshape(x, 1, 16, 64), perm=[0, 2, 1])
    first, second = (
        net.constant(f"w{shape}", net.random.normal(size=shape).astype(np.float32))
        for shape in ((16, 12), (12, 5))
    )
    return net.build(net.op("MatMul", net.relu(net.op("MatMul", x, first, name="mm")), second, name="out"))


def test_a_matrix_product_with_constant_weights_is_int8_and_valid():
    model = normalised(matmul_net())
    plan, qdq = quantise(model, replace(PLAIN, float_heads=True))
    assert plan.ops["mm"].precision is Precision.INT8
    onnx.checker.check_model(onnx.load_from_string(model_bytes(qdq)), full_check=True)
    picture = images(1, size=8)[0]
    assert snr_db(run(model_bytes(model), picture)[0], run(model_bytes(qdq), picture)[0]) > 25
    assert op_counts(optimised(model_bytes(qdq)))["QLinearMatMul"] == 1


def test_a_bias_shift_does_not_break_a_matrix_product():
    """MatMul has no bias: a shift must go elsewhere or be left out."""
    model = normalised(matmul_net())
    _, qdq = quantise(model, replace(PLAIN, float_heads=True), shifts={"mm": np.full(12, 0.1, np.float32)})
    onnx.checker.check_model(onnx.load_from_string(model_bytes(qdq)), full_check=True)
    run(model_bytes(qdq), images(1, size=8)[0])


@pytest.mark.parametrize(
    "shape",
    [
        (1, 10),
        (10,),
        (1,),
    ],
)
def test_a_gemm_bias_of_any_broadcast_shape_gives_a_valid_model(shape):
    net = Net(seed=4)
    x = net.relu(net.conv("images", 16, 3, stride=2, name="stem"))
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="pool"), axis=1)
    hidden = net.relu(net.gemm(x, 16, 10, name="hidden", bias=np.full(shape, 0.5)))
    model = normalised(net.build(net.gemm(hidden, 10, 4, name="classifier")))
    plan, qdq = quantise(model, replace(PLAIN, float_heads=True))
    assert plan.ops["hidden"].precision is Precision.INT8
    onnx.checker.check_model(onnx.load_from_string(model_bytes(qdq)), full_check=True)
    picture = images(1)[0]
    assert snr_db(run(model_bytes(model), picture)[0], run(model_bytes(qdq), picture)[0]) > 25


def test_a_product_of_activations_that_a_rule_wants_in_int8_reads_two_pairs():
    net = Net(seed=7, size=8)
    x = net.reshape(net.relu(net.conv("images", 4, 3, name="stem")), 1, 4, 8, 8)
    x = net.op("MatMul", x, net.op("Softmax", x, axis=2), name="product", channels=4)
    model = normalised(net.build(net.conv(net.relu(net.conv(x, 8, name="after")), 4, name="head")))
    plan, qdq = quantise(model, PLAIN.with_rules(Rule("product", Precision.INT8)))
    assert plan.ops["product"].precision is Precision.INT8
    table = Qdq(qdq)
    assert [table.source(name) for name in table.nodes["product"].input] == ["DequantizeLinear"] * 2


def test_constant_operands_of_elementwise_ops_are_quantised_exactly_at_their_ends():
    net = Net(seed=2)
    x = net.relu(net.conv("images", 8, 3, name="stem"))
    factors = np.linspace(0.1, 2.0, 8, dtype=np.float32).reshape(1, 8, 1, 1)
    x = net.op("Mul", x, net.constant("factors", factors), name="scaled")
    model = normalised(net.build(net.conv(net.relu(net.conv(x, 8, 3, name="after")), 4, name="head")))
    if not any(node_name(node) == "scaled" for node in model.graph):
        pytest.skip("ONNX Runtime folded the multiplication away")
    _, qdq = quantise(model, replace(PLAIN, float_heads=True))
    table = Qdq(qdq)
    maker = table.maker[table.nodes["scaled"].input[1]]
    values, scale, zero = (table.constants[name] for name in maker.input)
    held = (values.astype(np.float32) - zero) * scale
    assert np.abs(held - factors).max() <= 0.5 * scale * 1.0001
    assert held.max() == pytest.approx(2.0, rel=1e-6)
    assert op_counts(optimised(table.bytes))["QLinearMul"] == 1


# Float islands


def test_a_float_island_holds_no_pair():
    model = normalised(silu_net())
    kept = {"depthwise": "noisy", "pointwise": "noisy"}
    plan, qdq = quantise(model, PLAIN, kept_float=kept)
    table = Qdq(qdq)
    assert plan.ops["stem"].precision is Precision.INT8
    assert table.source(table.nodes["depthwise"].input[0]) == "DequantizeLinear"
    assert table.source(table.nodes["pointwise"].input[0]) == "Mul"
    assert table.constants[table.nodes["depthwise"].input[1]].dtype == np.float32
    counts = op_counts(optimised(table.bytes))
    assert counts["QLinearConv"] == 2, "stem and head"
    assert counts["QLinearSigmoid"] == 1


def test_a_float_producer_gives_float_readers_the_exact_tensor():
    model = normalised(residual_net())
    _, qdq = quantise(model, PLAIN.with_rules(Rule("stem", Precision.FLOAT), Rule("op:Add", Precision.FLOAT)))
    table = Qdq(qdq)
    stem_activation = next(n for n in table.nodes["residual"].input if table.source(n) == "Mul")
    assert table.source(table.nodes["branch"].input[0]) == "DequantizeLinear"
    assert stem_activation in {node.outputs[0].name for node in model.graph}


# The planner


def test_shared_tensors_say_whose_grid_they_take():
    plan, _ = quantise(normalised(NETS["concat"]()), PLAIN)
    assert plan.tensors["pool_out"].method.startswith("shared with ")
    root = plan.tensors["pool_out"].method.removeprefix("shared with ")
    assert plan.tensors["pool_out"].grid == plan.tensors[root].grid


def test_a_range_rule_holds_for_what_the_node_makes():
    model, pictures = normalised(silu_net()), images(6)
    statistics = Observer(model).observe(pictures)
    recipe = PLAIN.with_rules(
        Rule("op:Conv", range=RangeMethod.PERCENTILE), Rule("stem", range=RangeMethod.MOVING_AVERAGE)
    )
    grids = choose_grids(model, UINT8, recipe, statistics, pictures)
    assert grids["stem_out"].method == "moving-average"
    assert grids["depthwise_out"].method == "percentile"
    assert grids["images"].method == "minmax"
    expected = statistics.tensors["stem_out"].image_high.mean()
    assert grids["stem_out"].grid.range.high == pytest.approx(expected, abs=grids["stem_out"].grid.scale)


def test_symmetric_activations_where_the_recipe_wants_them():
    model = normalised(silu_net())
    plan, _ = quantise(model, replace(PLAIN, symmetric=True))
    floating = {name: t for name, t in plan.tensors.items() if t.method != "fixed"}
    assert {tensor.grid.zero_point for tensor in floating.values()} == {128}
    plan, _ = quantise(model, PLAIN, INT8)
    assert {t.grid.dtype for t in plan.tensors.values()} == {INT8.activation_dtype}


def test_conv_inputs_only_puts_no_pair_between_convolution_and_activation():
    model = normalised(silu_net())
    _, qdq = quantise(model, PLAIN, replace(UINT8, placement=Placement.COMPUTE_INPUTS))
    table = Qdq(qdq)
    for layer in ("stem", "depthwise", "pointwise"):
        assert {node.op_type for node in table.readers[f"{layer}_out"]} == {"Sigmoid", "Mul"}
        assert table.source(table.nodes[layer].input[0]) == "DequantizeLinear"
    onnx.checker.check_model(table.proto, full_check=True)


def test_conv_inputs_only_takes_constant_operands():
    net = Net(seed=2)
    x = net.silu(net.conv("images", 8, 3, name="stem"))
    half = net.constant("half", np.float32(0.5))
    x = net.op("Mul", net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), half, name="halved")
    model = normalised(net.build(net.conv(net.op("Sigmoid", x), 4, name="head")))
    target = replace(UINT8, placement=Placement.COMPUTE_INPUTS)
    _, qdq = quantise(model, PLAIN, target)
    onnx.checker.check_model(onnx.load_from_string(model_bytes(qdq)), full_check=True)


def test_a_plan_splits_into_int8_and_float_ops():
    plan, _ = quantise(normalised(attention_net()), PLAIN)
    assert isinstance(plan, Plan)
    assert {op.name for op in plan.int8_ops} | {op.name for op in plan.float_ops} == set(plan.ops)
    assert not {op.name for op in plan.int8_ops} & {op.name for op in plan.float_ops}


def test_corrections_of_float_layers_are_left_out_of_the_plan():
    model = normalised(silu_net())
    pictures = images(2)
    grids = choose_grids(model, UINT8, PLAIN, Observer(model).observe(pictures), pictures)
    shifts = {"stem": np.ones(16, np.float32), "depthwise": np.ones(16, np.float32)}
    plan = build_plan(
        model, UINT8, Recipe(range=RangeMethod.MINMAX), grids,
        kept_float={"stem": "noisy"}, bias_shifts=shifts,
    )  # fmt: skip
    assert set(plan.bias_shifts) == {"depthwise"}


def test_a_classifier_computes_in_int8_and_gives_its_scores_in_float():
    """No rounding of the logits: QGemm without an output scale."""
    model = normalised(classifier_net())
    plan, qdq = quantise(model, replace(PLAIN, float_heads=True))
    last = list(plan.ops.values())[-1]
    assert (last.op_type, last.precision) == ("Gemm", Precision.INT8)
    assert model.graph.outputs[0].name not in plan.tensors
    counts = op_counts(optimised(model_bytes(qdq)))
    assert (counts["QGemm"], counts["Gemm"]) == (1, 0)
