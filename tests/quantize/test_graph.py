"""Questions to a graph: what is tail, head, depthwise, SiLU."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.quantize.graph import (
    activation_output,
    add_constant,
    head_nodes,
    is_depthwise,
    node_name,
    silu_of,
    tail_nodes,
    weight_axis,
)

from .nets import Net, attention_net, classifier_net, normalised, relu6_net, silu_net, yolov8_net, yolox_net


def nodes_of(model):
    return {node_name(node): node for node in model.graph}


def tail_and_heads(model):
    tail = tail_nodes(model.graph)
    return {node_name(n) for n in tail}, {node_name(n) for n in head_nodes(model.graph, tail)}


def test_yolov8_boxes_are_read_through_dfl_which_is_tail():
    tail, heads = tail_and_heads(normalised(yolov8_net()))
    assert {"dfl.softmax", "dfl.conv", "split", "decode", "scores"} <= tail
    assert heads == {"box.1", "cls.1"}
    assert not tail & {"box.0", "cls.0", "stem", "neck"}


def test_yolox_scores_are_tail_and_three_layers_predict():
    model = normalised(yolox_net())
    tail, heads = tail_and_heads(model)
    assert {"obj.sigmoid", "cls.sigmoid"} <= tail
    assert heads == {"reg", "obj", "cls"}
    assert all(nodes_of(model)[name].op_type not in ("Conv", "Mul") for name in tail)


def test_a_classifier_ends_in_its_matrix_product():
    tail, heads = tail_and_heads(normalised(classifier_net()))
    assert tail == set()
    assert heads == {"classifier"}


def test_attention_inside_the_network_is_no_tail():
    tail, heads = tail_and_heads(normalised(attention_net()))
    assert tail == set()
    assert heads == {"head"}


def test_a_convolution_over_one_channel_behind_no_softmax_is_no_dfl():
    net = Net()
    x = net.relu(net.conv("images", 8, 3))
    model = normalised(net.build(net.op("Sigmoid", net.conv(x, 1, name="objectness"))))
    assert tail_and_heads(model)[1] == {"objectness"}


def test_an_activation_that_the_network_also_reads_is_no_tail():
    """An auxiliary output: the nodes behind it serve the rest of the network too."""
    net = Net()
    x = net.relu(net.conv("images", 8, 3, name="stem"))
    y = net.conv(x, 4, name="head")
    tail, heads = tail_and_heads(normalised(net.build(net.op("Sigmoid", y, name="scores"), x)))
    assert tail == {"scores", "identity1"}
    assert heads == {"head"}


@pytest.mark.parametrize("swapped", [False, True])
def test_silu_is_found_whichever_way_it_is_written(swapped):
    net = Net()
    x = net.conv("images", 8, name="conv")
    gate = net.op("Sigmoid", x, name="gate")
    y = net.op("Mul", *((gate, x) if swapped else (x, gate)), name="mul")
    nodes = nodes_of(normalised(net.build(net.conv(y, 2, name="head"))))
    sigmoid, value = silu_of(nodes["mul"])
    assert sigmoid is nodes["gate"]
    assert value is nodes["conv"].outputs[0]
    activation, end = activation_output(nodes["conv"].outputs[0])
    assert {node_name(node) for node in activation} == {"gate", "mul"}
    assert end is nodes["mul"].outputs[0]


def test_what_only_looks_like_a_silu_is_none():
    net = Net()
    x, other = net.conv("images", 8, name="conv"), net.conv("images", 8, name="other")
    gate = net.op("Sigmoid", other, name="gate")
    gated = net.op("Mul", x, gate, name="gated")
    shared = net.op("Sigmoid", x, name="shared")
    product = net.op("Mul", x, shared, name="product")
    square = net.op("Mul", other, other, name="square")
    total = net.op("Add", net.op("Add", gated, product), net.op("Add", shared, square))
    nodes = nodes_of(normalised(net.build(net.conv(total, 2, name="head"))))
    assert silu_of(nodes["gated"]) is None
    assert silu_of(nodes["product"]) is None
    assert silu_of(nodes["square"]) is None
    assert silu_of(nodes["head"]) is None


def test_an_activation_with_another_reader_does_not_belong_to_the_convolution():
    net = Net()
    x = net.conv("images", 8, name="conv")
    y = net.op("Add", x, net.relu(x))
    nodes = nodes_of(normalised(net.build(net.conv(y, 2, name="head"))))
    assert activation_output(nodes["conv"].outputs[0]) == ([], nodes["conv"].outputs[0])


@pytest.mark.parametrize(
    ("channels", "group", "multiplier", "expected"),
    [(8, 8, 1, True), (8, 8, 2, True), (8, 4, 1, False), (8, 1, 1, False), (1, 1, 1, False)],
)
def test_depthwise_is_one_input_channel_per_group(channels, group, multiplier, expected):
    net = Net()
    x = net.relu(net.conv("images", channels, name="stem"))
    x = net.relu(net.conv(x, channels * multiplier, 3, group=group, name="subject"))
    nodes = nodes_of(normalised(net.build(net.conv(x, 2, name="head"))))
    assert is_depthwise(nodes["subject"]) is expected
    assert not is_depthwise(nodes["stem"])


def test_the_depthwise_layers_of_the_networks():
    for make, names in ((silu_net, {"depthwise"}), (relu6_net, {"depthwise"}), (yolox_net, {"neck"})):
        nodes = nodes_of(normalised(make()))
        assert {name for name, node in nodes.items() if is_depthwise(node)} == names


def test_weight_axis_is_the_output_channel():
    net = Net(size=8)
    x = net.op("Flatten", net.relu(net.conv("images", 4, name="conv")), axis=1)
    wide = net.constant("wide_w", np.ones((256, 12), np.float32))
    x = net.relu(net.op("MatMul", x, wide, name="matmul"))
    turned = net.constant("turned_w", np.ones((12, 5), np.float32))
    nodes = nodes_of(normalised(net.build(net.op("Gemm", x, turned, name="gemm"))))
    axes = {name: weight_axis(nodes[name]) for name in ("conv", "matmul", "gemm") if name in nodes}
    assert axes == {"conv": 0, "matmul": 1, "gemm": 1}
    assert weight_axis(nodes_of(normalised(classifier_net()))["classifier"]) == 0


def test_a_constant_never_takes_a_name_that_is_there():
    model = normalised(silu_net())
    first, second = (add_constant(model.graph, "scale", np.float32(i)) for i in (1, 2))
    assert first.name != second.name
    assert model.graph.initializers[first.name].const_value.numpy() == 1.0
