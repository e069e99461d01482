"""Grids of head tensors keep what the scores can tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.quantize.auto import choose_grids
from edgeq.quantize.graph import tail_nodes
from edgeq.quantize.grid import Range
from edgeq.quantize.head_range import head_range, is_head
from edgeq.quantize.observe import Observer
from edgeq.quantize.recipe import Recipe
from tests.quantize.nets import INT8, NETS, Net, images, normalised


def value_of(model, name):
    return next(value for node in model.graph for value in node.outputs if node.name == name)


@pytest.mark.parametrize(("net", "heads"), [("yolov8", {"box.1", "cls.1"}), ("yolox", {"reg", "obj", "cls"})])
def test_heads_are_what_only_decoding_reads(net, heads):
    model = normalised(NETS[net]())
    tail = tail_nodes(model.graph)
    layers = [node for node in model.graph if node.op_type == "Conv" and node not in tail]
    assert {node.name for node in layers if is_head(node.outputs[0], tail)} == heads


@pytest.mark.parametrize(("name", "low"), [("cls", -8.0), ("obj", -8.0), ("reg", -40.0)])
def test_logits_of_scores_have_a_floor_and_boxes_none(name, low):
    value = value_of(normalised(NETS["yolox"]()), name)
    assert head_range(value, Range(-40.0, 3.5)) == Range(low, 3.5)
    assert head_range(value, Range(-2.0, 3.5)) == Range(-2.0, 3.5)


def test_a_rare_confident_logit_is_not_clipped():
    """Squared error would give it up for the background, and no score could pass 0.5 then."""
    net = Net(seed=2)
    x = net.silu(net.conv("images", 16, 3, stride=2, name="stem"))
    scores = net.op("Sigmoid", net.conv(x, 4, name="scores", gain=6.0, bias=np.full(4, -20.0)))
    model = normalised(net.build(scores))
    statistics = Observer(model).observe(images(6))
    value = value_of(model, "scores")
    observed = statistics.tensors[value.name]
    grid = choose_grids(model, INT8, Recipe(), statistics, images(2))[value.name]
    assert grid.method == "head"
    assert grid.grid.range.low >= -8.1
    assert grid.grid.range.high >= observed.high - grid.grid.scale
