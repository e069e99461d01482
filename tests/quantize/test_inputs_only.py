"""Pairs on inputs only, as OpenVINO wants them: where they stand, what they share, grids per channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgeq.quantize.auto import choose_grids
from edgeq.quantize.equalize import equalize_depthwise
from edgeq.quantize.grid import channel_affine, fake_quantize
from edgeq.quantize.insert import insert_qdq, model_bytes
from edgeq.quantize.observe import Observer
from edgeq.quantize.pipeline import quantize
from edgeq.quantize.planner import build_plan
from edgeq.quantize.recipe import Granularity, Precision, RangeMethod, Recipe, Rule
from edgeq.quantize.weights import quantize_weight
from edgeq.runtimes.openvino.scheme import scheme
from edgeq.types import IntegerType

from .nets import (
    NETS,
    PLAIN,
    UINT8,
    Net,
    attention_net,
    calibration_set,
    concat_net,
    float_model,
    images,
    normalised,
    quantise,
    residual_net,
    run,
    silu_net,
    snr_db,
)

OPENVINO = scheme()
U8 = IntegerType.UINT8


class Graph:
    """A QDQ model as tables: which tensor is rounded for which readers."""

    def __init__(self, model):
        self.proto = onnx.load_from_string(model_bytes(model))
        onnx.checker.check_model(self.proto, full_check=True)
        self.nodes = {node.name: node for node in self.proto.graph.node}
        self.maker = {name: node for node in self.proto.graph.node for name in node.output}
        self.constants = {t.name: onnx.numpy_helper.to_array(t) for t in self.proto.graph.initializer}

    def rounded(self):
        """Names of the tensors that a QuantizeLinear reads."""
        return {node.input[0] for node in self.proto.graph.node if node.op_type == "QuantizeLinear"}

    def grid(self, tensor):
        """(scale, zero point) of the pair on a tensor."""
        node = next(
            n for n in self.proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor
        )
        return self.constants[node.input[1]], self.constants[node.input[2]]


@pytest.mark.parametrize("name", NETS)
def test_every_network_gives_a_valid_model_that_is_close(name):
    model = normalised(NETS[name]())
    _, qdq = quantise(model, PLAIN, OPENVINO)
    Graph(qdq)
    picture = images(1, seed=9, size=model.graph.inputs[0].shape[2])[0]
    exact, rounded = (run(model_bytes(m), picture)[0] for m in (model, qdq))
    assert snr_db(exact, rounded) > 10


def test_silu_stays_inside_its_convolution_and_its_output_is_rounded_once_for_all_readers():
    model = normalised(residual_net())
    plan, qdq = quantise(model, PLAIN, OPENVINO)
    graph = Graph(qdq)
    assert graph.rounded() == {
        "images",
        *(n.output[0] for n in graph.nodes.values() if n.op_type in ("Mul", "Relu")),
    } | {"residual_out"}
    # Stem's SiLU feeds a convolution and the residual add: both read the same rounded tensor.
    reads = graph.nodes["branch"].input[0]
    assert reads in graph.nodes["residual"].input
    assert {op.precision for op in plan.ops.values() if op.op_type in ("Conv", "Add", "Mul", "Sigmoid")} == {
        Precision.INT8
    }


def test_prediction_layers_are_int8_and_their_outputs_exact():
    model = normalised(silu_net())
    plan, qdq = quantise(model, PLAIN, OPENVINO)
    assert plan.ops["head"].precision is Precision.INT8
    graph = Graph(qdq)
    assert graph.maker[graph.proto.graph.output[0].name].op_type == "Conv"
    kept, _ = quantise(model, replace(PLAIN, rules=(Rule("head", Precision.FLOAT),)), OPENVINO)
    assert kept.ops["head"].precision is Precision.FLOAT


def test_biases_stay_float():
    _, qdq = quantise(normalised(silu_net()), PLAIN, OPENVINO)
    graph = Graph(qdq)
    for name in ("stem", "depthwise", "head"):
        assert graph.constants[graph.nodes[name].input[2]].dtype == np.float32


def test_what_a_concatenation_joins_has_one_grid_and_is_not_rounded_behind_it():
    plan, qdq = quantise(normalised(concat_net()), PLAIN, OPENVINO)
    graph = Graph(qdq)
    concat = next(node for node in graph.nodes.values() if node.op_type == "Concat")
    rounded = graph.rounded()
    assert (
        not {
            out
            for op in ("MaxPool", "Concat", "Resize")
            for n in graph.nodes.values()
            if n.op_type == op
            for out in n.output
        }
        & rounded
    )
    small, large = (n for n in plan.tensors if n in rounded and "shared" in plan.tensors[n].method)
    assert plan.tensors[small].grid == plan.tensors[large].grid
    assert plan.tensors[small].method == f"shared with {concat.output[0]}"


def test_a_tensor_that_two_concatenations_read_takes_the_widest_grid():
    net = Net(seed=3)
    x = net.relu(net.conv("images", 8, 3, stride=2, name="stem"))
    small = net.relu(net.conv(x, 8, name="small", gain=0.1))
    large = net.relu(net.conv(x, 8, name="large", gain=9.0))
    first = net.conv(net.concat(x, small), 4, name="first")
    second = net.conv(net.concat(x, large), 4, name="second")
    model = normalised(net.build(net.op("Add", first, second)))
    plan, _ = quantise(model, PLAIN, OPENVINO)
    grids = {tensor.grid for name, tensor in plan.tensors.items() if name != "images"}
    assert len(grids) == 1
    assert next(iter(grids)).range.high == pytest.approx(_high(model, plan), rel=0.02)


def _high(model, plan):
    observed = Observer(model).observe(images())
    return max(observed.tensors[name].high for name in plan.tensors if name != "images")


def test_moving_ops_in_front_of_float_products_are_left_alone():
    """Attention: nothing behind its products is INT8, so rounding their inputs would save nothing."""
    plan, _ = quantise(normalised(attention_net()), PLAIN, OPENVINO)
    for op in plan.ops.values():
        if op.op_type in ("Reshape", "Transpose") and op.precision is Precision.INT8:
            assert any(other.op_type in ("Conv", "Gemm") for other in plan.int8_ops)


def test_a_kept_convolution_reads_and_gives_float():
    model = normalised(silu_net())
    _, qdq = quantise(model, PLAIN, OPENVINO, kept_float={"stem": "noisy"})
    graph = Graph(qdq)
    assert graph.nodes["stem"].input[0] == "images"
    assert graph.maker[graph.nodes["depthwise"].input[0]].op_type == "DequantizeLinear"


# Grids per channel


def test_only_the_input_of_a_depthwise_convolution_has_a_grid_per_channel():
    plan, qdq = quantise(normalised(silu_net()), PLAIN, OPENVINO)
    graph = Graph(qdq)
    perchannel = {name for name, tensor in plan.tensors.items() if tensor.channels is not None}
    reads = graph.maker[graph.maker[graph.nodes["depthwise"].input[0]].input[0]].input[0]
    assert perchannel == {reads}
    scale, zero = graph.grid(reads)
    assert scale.shape == zero.shape == (16,)
    assert zero.dtype == np.uint8
    others = [graph.grid(name)[0].shape for name in graph.rounded() - perchannel]
    assert set(others) == {()}
    assert all(tensor.channels is None for tensor in quantise(normalised(silu_net()))[0].tensors.values())


def test_a_tensor_that_others_read_too_has_one_grid():
    net = Net(seed=1)
    x = net.silu(net.conv("images", 16, 3, stride=2, name="stem"))
    deep, wide = net.depthwise(x, name="deep"), net.conv(x, 16, name="wide")
    plan, _ = quantise(normalised(net.build(net.op("Add", deep, wide))), PLAIN, OPENVINO)
    assert all(tensor.channels is None for tensor in plan.tensors.values())


def test_channel_grids_are_those_of_their_ranges():
    low, high = np.asarray([-1.0, 0.5, -2.0]), np.asarray([1.55, 4.0, -1.0])
    grids = channel_affine(low, high, U8, symmetric=False)
    assert grids.scale == pytest.approx(np.asarray([2.55, 4.0, 2.0]) / 255)
    assert list(grids.zero_point) == [100, 0, 255]
    symmetric = channel_affine(low, high, U8, symmetric=True)
    assert list(symmetric.zero_point) == [128, 128, 128]


def test_rounding_per_channel_is_rounding_each_channel():
    values = np.random.default_rng(0).normal(size=(1, 3, 5, 4)).astype(np.float32) * [[[[1]], [[9]], [[0.1]]]]
    low, high = values.min(axis=(0, 2, 3)), values.max(axis=(0, 2, 3))
    rounded = fake_quantize(values, channel_affine(low, high, U8, symmetric=False))
    for channel in range(3):
        alone = channel_affine(low[[channel]], high[[channel]], U8, symmetric=False)
        assert np.array_equal(rounded[:, [channel]], fake_quantize(values[:, [channel]], alone))
        step = (max(high[channel], 0) - min(low[channel], 0)) / 255
        assert np.abs(rounded - values)[:, channel].max() <= step


@pytest.mark.parametrize(
    "method", [RangeMethod.MINMAX, RangeMethod.MOVING_AVERAGE, RangeMethod.PERCENTILE, RangeMethod.AUTO]
)
def test_channels_recover_what_one_grid_loses(method):
    """A first layer whose channels differ hundredfold, as YOLOX's: noise at the output against one grid."""
    net = Net(seed=0)
    weight = np.random.default_rng(0).normal(size=(16, 3, 3, 3)) * np.geomspace(0.02, 3, 16).reshape(
        -1, 1, 1, 1
    )
    x = net.silu(net.conv("images", 16, 3, stride=2, name="stem", weight=weight, bias=False))
    gains = np.geomspace(50, 0.3, 16).reshape(-1, 1, 1, 1) * np.random.default_rng(1).normal(
        size=(16, 1, 3, 3)
    )
    x = net.silu(net.conv(x, 16, 3, name="depthwise", group=16, weight=gains, bias=False))
    model = normalised(net.build(net.conv(x, 8, name="head")))
    recipe = replace(PLAIN, range=method)
    one = replace(OPENVINO, depthwise_channel_grids=False)
    picture = images(1, seed=9)[0]
    exact = run(model_bytes(model), picture)[0]
    noise = {}
    for name, target in (("one", one), ("channels", OPENVINO)):
        _, qdq = quantise(model, recipe, target)
        noise[name] = snr_db(exact, run(model_bytes(qdq), picture)[0])
    assert noise["channels"] > noise["one"] + 4


def test_equalised_models_still_quantise(tmp_path):
    model = float_model(silu_net())
    statistics = Observer(normalised(silu_net())).observe(images())
    equalised, count = equalize_depthwise(model, statistics)
    assert count == 1
    result = quantize(
        equalised,
        calibration_set(tmp_path, 4),
        OPENVINO,
        replace(PLAIN, depthwise_equalization=True),
        cache_folder=None,
    )
    assert result.plan.int8_ops


# Seven bits


def test_seven_bit_weights_use_half_the_levels():
    weight = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)
    for method in (RangeMethod.MINMAX, RangeMethod.MSE):
        made = quantize_weight(weight, axis=0, granularity=Granularity.PER_CHANNEL, method=method, bits=7)
        assert np.abs(made.values).max() == 63
        assert np.abs(made.values * made.scale.reshape(-1, 1, 1, 1) - weight).max() <= made.scale.max() * (
            0.5001 if method is RangeMethod.MINMAX else 14
        )


def test_the_recipe_goes_before_the_scheme():
    model = normalised(silu_net())
    assert quantise(model, PLAIN, scheme(weight_bits=7))[0].weight_bits == 7
    assert quantise(model, replace(PLAIN, weight_bits=8), scheme(weight_bits=7))[0].weight_bits == 8
    assert quantise(model, replace(PLAIN, weight_bits=7), UINT8)[0].weight_bits == 7
    _, qdq = quantise(model, replace(PLAIN, weight_bits=7), OPENVINO)
    weights = [v for v in Graph(qdq).constants.values() if v.dtype == np.int8 and v.ndim == 4]
    assert len(weights) == 4
    assert max(np.abs(v.astype(int)).max() for v in weights) == 63


# One calibration for all


def test_two_runtimes_share_one_pass_over_the_images(tmp_path):
    """Statistics know no scheme: the second runtime finds them in the cache, bit for bit."""
    model, calibration = float_model(silu_net()), calibration_set(tmp_path / "images", 6)
    recipe = Recipe(max_predicted_drop=None)
    first = quantize(model, calibration, UINT8, recipe, cache_folder=tmp_path / "cache")
    second = quantize(model, calibration, OPENVINO, recipe, cache_folder=tmp_path / "cache")
    assert (first.cache_hit, second.cache_hit) == (False, True)
    assert first.statistics.to_bytes() == second.statistics.to_bytes()
    alone = quantize(model, calibration, OPENVINO, recipe, cache_folder=None)
    assert alone.qdq == second.qdq


def test_grids_and_plan_of_the_same_statistics_are_the_same(tmp_path):
    model, pictures = normalised(silu_net()), images()
    statistics = Observer(model).observe(pictures)
    made = []
    for _ in range(2):
        grids = choose_grids(model, OPENVINO, Recipe(), statistics, pictures)
        made.append(model_bytes(insert_qdq(model, build_plan(model, OPENVINO, Recipe(), grids))))
    assert made[0] == made[1]
