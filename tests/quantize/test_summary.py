"""What a model sums up of its tensors equals what the tensors say; its nodes stay in an order that runs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from edgeq.errors import CalibrationError
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.observe import Observer, observed_values, session_with_outputs
from edgeq.quantize.ort import light_first, summing_session
from edgeq.quantize.summary import subset, with_summaries

from .nets import NETS, Net, images, normalised


def _computed(model):
    return [value for value in observed_values(model) if value.producer() is not None]


@pytest.mark.parametrize("name", NETS)
def test_summaries_equal_those_of_the_tensors(name):
    model = normalised(NETS[name]())
    found = with_summaries(model, _computed(model))
    assert found.names
    picture = images(1, size=int(model.graph.inputs[0].shape[2]))[0]
    session = summing_session(found.model.SerializeToString())
    lows, highs, subsets = session.run(list(found.outputs), {"images": picture})
    plain, _, names = session_with_outputs(model, found.names)
    tensors = plain.run(names, {"images": picture})
    # Blocked convolutions add in another order.
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(lows, np.concatenate([t.min(axis=(2, 3)) for t in tensors], axis=1), **close)
    np.testing.assert_allclose(highs, np.concatenate([t.max(axis=(2, 3)) for t in tensors], axis=1), **close)
    np.testing.assert_allclose(subsets, np.concatenate([subset(t) for t in tensors]), **close)
    assert found.channel_counts == tuple(t.shape[1] for t in tensors)
    assert found.subset_sizes == tuple(len(subset(t)) for t in tensors)


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_every_opset_has_its_form_of_a_reduction(opset):
    net = Net(size=72, opset=opset)
    model = normalised(net.build(net.conv(net.relu("images"), 2, name="head")))
    picture = images(1, size=72)[0]
    statistics = Observer(model).observe([picture])
    relu = next(node.outputs[0].name for node in model.graph if node.op_type == "Relu")
    channels = statistics.tensors[relu].channels
    np.testing.assert_array_equal(channels.high, np.maximum(picture, 0).max(axis=(0, 2, 3)))
    assert statistics.tensors[relu].histogram.counts.sum() == len(subset(picture))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["all", "one"])
def test_what_is_not_finite_is_refused(value, where):
    net = Net(size=32)
    model = normalised(net.build(net.conv(net.conv("images", 4, name="stem"), 2, name="head")))
    picture = images(1)[0].copy()
    picture[(..., 5, 7) if where == "one" else ...] = value
    with pytest.raises(CalibrationError, match="NaN or infinity"):
        Observer(model).observe([picture])


def test_light_nodes_come_as_soon_as_they_can():
    def node(op_type, inputs, name):
        return helper.make_node(op_type, inputs, [name])

    nodes = [
        node("Conv", ["x"], "a"),
        node("Conv", ["a"], "b"),
        node("Conv", ["b"], "c"),
        node("ReorderOutput", ["a"], "a2"),
        node("ReduceMin", ["a2"], "low"),
        node("ReorderOutput", ["b"], "b2"),
        node("Concat", ["low", "b2", "c"], "y"),
    ]
    ordered = light_first(nodes, {"ReorderOutput", "ReduceMin"})
    assert [found.output[0] for found in ordered] == ["a", "a2", "low", "b", "b2", "c", "y"]


def test_the_source_is_left_alone():
    model = normalised(NETS["silu"]())
    before = model_bytes(model)
    with_summaries(model, _computed(model))
    assert model_bytes(model) == before
