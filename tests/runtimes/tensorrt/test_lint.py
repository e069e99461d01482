import time

import numpy as np
import onnx
import pytest

from edgeq.errors import ModelError
from edgeq.runtimes.tensorrt.findings import Severity
from edgeq.runtimes.tensorrt.lint import RULES, lint, read_model, wanted_layers

from .broken import BROKEN
from .nets import Net, clean

CASES = [
    pytest.param(rule, make, id=f"{rule}-{make.__name__}") for rule, makes in BROKEN.items() for make in makes
]


def found(model):
    return {(entry.rule, entry.severity) for entry in lint(model)}


def test_every_rule_has_a_model_that_breaks_it():
    assert {rule.__name__.replace("_", "-") for rule in RULES} == set(BROKEN)


def test_a_clean_model_is_clean():
    assert lint(clean()) == ()


@pytest.mark.parametrize(("rule", "make"), CASES)
def test_broken_models(rule, make):
    findings = [entry for entry in lint(make()) if entry.rule == rule]
    assert findings
    assert all(entry.message and entry.fix for entry in findings)
    names = {node.name for node in make().graph.node} | {entry.name for entry in make().graph.initializer}
    assert all(entry.node in names for entry in findings if rule not in ("opset", "high-opset"))


@pytest.mark.parametrize(("rule", "make"), CASES)
def test_one_broken_rule_is_one_severity(rule, make):
    severities = {severity for name, severity in found(make()) if name == rule}
    assert len(severities) == 1


def test_the_severest_come_first():
    model = BROKEN["high-opset"][0]()
    model.graph.node[-1].domain = "com.microsoft"
    assert [entry.severity for entry in lint(model)] == [Severity.ERROR, Severity.NOTE]


@pytest.mark.parametrize("op", ["MaxPool", "Reshape", "Transpose", "Identity", "Pad"])
def test_ops_that_move_values_may_stand_between(op):
    net = Net()
    x = net.pair("x")
    more = {
        "Reshape": [net.const("shape", np.array([1, 8, 8, 32], np.int64))],
        "Pad": [net.const("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))],
    }
    attributes = {
        "MaxPool": {"kernel_shape": [2, 2], "strides": [2, 2]},
        "Transpose": {"perm": [0, 1, 3, 2]},
    }
    net.node(op, [x, *more.get(op, [])], "moved", **attributes.get(op, {}))
    net.node("Conv", ["moved", net.weight("w", (8, 8, 1, 1))], "y")
    assert lint(net.model("y")) == ()


def test_a_concat_of_one_scale_may_stand_between():
    net = Net()
    x = net.pair("x")
    net.node("Concat", [x, x], "joined", axis=1)
    net.node("Conv", ["joined", net.weight("w", (8, 16, 1, 1))], "y")
    assert lint(net.model("y")) == ()


def test_a_pair_behind_a_layer_is_right_where_another_layer_reads_it():
    net = Net()
    x = net.pair("x")
    net.node("Conv", [x, net.weight("w", (8, 8, 1, 1))], "c")
    c = net.pair("c")
    net.node("Conv", [c, net.weight("w2", (8, 8, 1, 1))], "d")
    net.node("Add", ["d", c], "y")
    assert lint(net.model("y")) == ()


def test_layers_tell_why_they_are_float():
    model = BROKEN["weight-axis"][0]()
    (layer,) = wanted_layers(model, lint(model))
    assert layer.why_float.startswith("weight-axis: ")
    net = Net()
    net.node("Conv", ["x", net.float_weight("w", (8, 8, 1, 1))], "y")
    (layer,) = wanted_layers(net.model("y"), ())
    assert layer.why_float == "not quantised in the model"


def test_nodes_out_of_order_are_refused():
    model = clean()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(ModelError, match="before it is made"):
        lint(model)


def test_a_long_tangle_of_concats_takes_no_time():
    net = Net()
    name = net.pair("x")
    for index in range(2000):
        name = net.node("Concat", [name, name], f"c{index}", axis=1)
    net.node("Conv", [name, net.weight("w", (8, 8, 1, 1))], "y")
    start = time.process_time()
    lint(net.model("y"))
    assert time.process_time() - start < 20


def test_what_is_no_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_bytes(b"\xff\xfenot onnx")
    with pytest.raises(ModelError):
        read_model(tmp_path / "text.onnx")
    onnx.save(onnx.ModelProto(), tmp_path / "empty.onnx")
    with pytest.raises(ModelError, match="empty"):
        read_model(tmp_path / "empty.onnx")


def test_nodes_without_inputs_or_outputs_do_no_harm():
    model = clean()
    for op in ("QuantizeLinear", "DequantizeLinear", "Conv", "Concat", "Add", "Constant", "Cast"):
        model.graph.node.append(onnx.helper.make_node(op, [], []))
        model.graph.node.append(onnx.helper.make_node(op, [""], [f"loose_{op}"]))
    lint(model)
