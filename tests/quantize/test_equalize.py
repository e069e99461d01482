"""Depthwise equalisation: exact in float, less noise in INT8, and only where it is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeq.quantize.equalize import equalize_depthwise
from edgeq.quantize.graph import activation_output, is_depthwise
from edgeq.quantize.observe import Observer
from edgeq.quantize.teacher import layer_errors
from edgeq.runtimes.symmetric import symmetric_scheme

from .nets import PLAIN, Net, float_model, images, op_counts, optimised, qdq_bytes, quantise, run

GAINS = np.geomspace(0.02, 2.0, 16)
"""Channel magnitudes of a stem two decades apart, as in YOLOX-Nano."""


def uneven(net, *, out=16):
    weight = net.random.normal(size=(out, 3, 3, 3)) * GAINS[:out, None, None, None]
    return net.conv("images", out, 3, name="stem", weight=weight, bias=net.random.normal(size=out) * 0.01)


def activated(net, x, activation):
    if activation == "silu":
        return net.silu(x)
    if activation == "none":
        return x
    return net.op(activation, x, **({"alpha": 0.1} if activation == "LeakyRelu" else {}))


def finished(net, x):
    x = net.relu(net.depthwise(x, name="depthwise"))
    return net.build(net.conv(x, 8, name="head"))


def equalised(proto, **how):
    model = float_model(proto)
    graph = ir.serde.deserialize_model(onnx.load_from_string(model.onnx_bytes))
    return model, *equalize_depthwise(model, Observer(graph).observe(images(4)), **how)


def assert_exact(before, after, picture=None):
    picture = images(1, seed=5)[0] if picture is None else picture
    pairs = zip(run(before.onnx_bytes, picture), run(after.onnx_bytes, picture), strict=True)
    for expected, got in pairs:
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("activation", ["none", "Relu", "LeakyRelu", "silu"])
def test_the_outputs_stay_what_they_were(activation, behind):
    net = Net(seed=1)
    model, after, count = equalised(finished(net, activated(net, uneven(net), activation)), behind=behind)
    assert count == 1
    assert after.onnx_bytes != model.onnx_bytes
    onnx.checker.check_model(onnx.load_from_string(after.onnx_bytes), full_check=True)
    assert_exact(model, after)
    # Far outside the calibrated range too: the identity is algebra, not approximation.
    assert_exact(model, after, images(1, seed=6)[0] * 100 - 50)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("activation", ["none", "Relu", "LeakyRelu", "silu"])
def test_the_noise_at_the_depthwise_convolution_falls(activation, behind):
    net = Net(seed=1)
    model, after, _ = equalised(finished(net, activated(net, uneven(net), activation)), behind=behind)
    noise = []
    for each in (model, after):
        graph = ir.serde.deserialize_model(onnx.load_from_string(each.onnx_bytes))
        recipe = replace(PLAIN, float_heads=True)
        # Behind a SiLU it helps only where the convolution's own output is not rounded.
        _, qdq = quantise(graph, recipe, symmetric_scheme("test")) if behind else quantise(graph, recipe)
        noise.append(layer_errors(graph, qdq, images(3, seed=9))["depthwise"].noise)
    assert noise[1] < 0.2 * noise[0]


def test_channels_come_closer_together():
    net = Net(seed=1)
    model, after, _ = equalised(finished(net, activated(net, uneven(net), "Relu")))
    spreads = []
    for each in (model, after):
        graph = ir.serde.deserialize_model(onnx.load_from_string(each.onnx_bytes))
        depthwise = next(node for node in graph.graph if is_depthwise(node))
        tensor = Observer(graph).observe(images(4)).tensors[depthwise.inputs[0].name]
        tops = tensor.channels.mean_high[tensor.channels.mean_high > 0]
        spreads.append(tops.max() / tops.min())
    # To the 255 levels of the factors.
    assert spreads[1] < min(0.05 * spreads[0], 5)


def test_an_equalised_silu_stays_integer_in_onnx_runtime():
    net = Net(seed=1)
    _, after, _ = equalised(finished(net, activated(net, uneven(net), "silu")))
    graph = ir.serde.deserialize_model(onnx.load_from_string(after.onnx_bytes))
    _, qdq = quantise(graph, replace(PLAIN, float_heads=True))
    counts = op_counts(optimised(qdq_bytes(qdq)))
    assert counts["QLinearConv"] == 2
    assert counts["QLinearMul"] == 2
    assert counts["Mul"] == counts["Sigmoid"] == 0


def test_behind_it_the_silu_stays_whole_and_the_convolution_as_it_was():
    net = Net(seed=1)
    model, after, _ = equalised(finished(net, activated(net, uneven(net), "silu")), behind=True)
    before, graph = (
        ir.serde.deserialize_model(onnx.load_from_string(each.onnx_bytes)).graph for each in (model, after)
    )
    stem, same = (next(node for node in each if node.name == "stem") for each in (before, graph))
    for index in (1, 2):
        assert np.array_equal(stem.inputs[index].const_value.numpy(), same.inputs[index].const_value.numpy())
    steps, same_steps = (activation_output(node.outputs[0])[0] for node in (stem, same))
    assert [step.op_type for step in same_steps] == [step.op_type for step in steps] == ["Sigmoid", "Mul"]
    (product,) = (node for node in graph if node.name == "stem_equalise")
    gains = product.inputs[1].const_value.numpy()
    assert np.array_equal(gains.astype(np.float16).astype(np.float32), gains)
    assert gains.min() == 1.0


def test_weights_too_small_for_float16_scales_grow_instead():
    net = Net(seed=1)
    weight = net.random.normal(size=(16, 3, 3, 3)) * GAINS[:, None, None, None] / 255
    stem = net.conv("images", 16, 3, name="stem", weight=weight, bias=net.random.normal(size=16))
    model, after, count = equalised(finished(net, net.silu(stem)), behind=True)
    assert count == 1
    assert_exact(model, after)
    names = {node.name for node in ir.serde.deserialize_model(onnx.load_from_string(after.onnx_bytes)).graph}
    assert "stem_restore" in names
    assert "stem_equalise" not in names


@pytest.mark.parametrize(("activation", "pays"), [("silu", False), ("Relu", True)])
def test_a_multiplication_has_to_pay(activation, pays):
    net = Net(seed=1)
    model = float_model(finished(net, activated(net, uneven(net), activation)))
    seen = Observer(ir.serde.deserialize_model(onnx.load_from_string(model.onnx_bytes))).observe(images(4))
    assert equalize_depthwise(model, seen, least_spread=10.0)[1] == 1
    same, count = equalize_depthwise(model, seen, least_spread=1e6)
    assert count == pays
    assert (same is model) is not pays


@pytest.mark.parametrize(("activation", "behind"), [("Relu", False), ("silu", False), ("silu", True)])
def test_two_depthwise_readers_are_scaled_together(activation, behind):
    net = Net(seed=1)
    x = activated(net, uneven(net), activation)
    y = net.op("Add", net.relu(net.depthwise(x, name="a")), net.relu(net.depthwise(x, 5, name="b")))
    model, after, count = equalised(net.build(net.conv(y, 8, name="head")), behind=behind)
    assert count == 1
    assert_exact(model, after)


def test_a_chain_of_depthwise_convolutions_stays_exact():
    net = Net(seed=1)
    x = net.relu(net.depthwise(net.relu(uneven(net)), name="first"))
    model, after, count = equalised(finished(net, x))
    assert count == 2
    assert_exact(model, after)


def test_a_channel_multiplier_is_scaled_right_or_left_alone():
    net = Net(seed=1)
    x = net.relu(uneven(net))
    x = net.relu(net.conv(x, 32, 3, group=16, name="depthwise"))
    model, after, _ = equalised(net.build(net.conv(x, 8, name="head")))
    assert_exact(model, after)


@pytest.mark.parametrize("where", ["activation", "convolution"])
@pytest.mark.parametrize("activation", ["Relu", "silu"])
def test_a_tensor_with_another_reader_is_left_alone(where, activation):
    net = Net(seed=1)
    stem = uneven(net)
    x = activated(net, stem, activation)
    other = net.conv(x if where == "activation" else stem, 16, name="other")
    y = net.op("Add", net.relu(net.depthwise(x, name="depthwise")), net.relu(other))
    model, after, count = equalised(net.build(net.conv(y, 8, name="head")))
    assert count == 0
    assert after is model


@pytest.mark.parametrize(
    "where",
    [
        "activation",
        "convolution",
    ],
)
@pytest.mark.parametrize("activation", ["Relu", "silu"])
def test_outputs_of_the_model_are_left_alone(where, activation):
    net = Net(seed=1)
    stem = uneven(net)
    x = activated(net, stem, activation)
    head = net.conv(net.relu(net.depthwise(x, name="depthwise")), 8, name="head")
    inner = x if where == "activation" else stem
    model, after, _ = equalised(net.build(head, inner, direct=True))
    assert [v.name for v in onnx.load_from_string(after.onnx_bytes).graph.output] == [head, inner]
    assert_exact(model, after)


@pytest.mark.parametrize("op", ["HardSwish", "Sigmoid", "Tanh", "Elu"])
def test_an_activation_that_does_not_scale_is_left_alone(op):
    net = Net(seed=1)
    model, after, count = equalised(finished(net, net.op(op, uneven(net))))
    assert count == 0
    assert after is model


def test_relu6_is_left_alone():
    net = Net(seed=1)
    model, after, count = equalised(finished(net, net.relu6(uneven(net))))
    assert count == 0
    assert after is model


def test_an_ordinary_convolution_as_reader_is_left_alone():
    net = Net(seed=1)
    model, after, count = equalised(net.build(net.conv(net.relu(uneven(net)), 8, 3, name="head")))
    assert count == 0
    assert after is model


def test_the_argument_is_not_changed():
    net = Net(seed=1)
    model = float_model(finished(net, net.silu(uneven(net))))
    before = model.onnx_bytes
    graph = ir.serde.deserialize_model(onnx.load_from_string(before))
    equalize_depthwise(model, Observer(graph).observe(images(2)))
    assert model.onnx_bytes == before
    assert model.sha256 == replace(model).sha256
