"""The QDQ model that the scheme leads to, as TensorRT wants it."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeq.errors import ModelError
from edgeq.quantize.pipeline import quantize
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.runtimes import load_runtime, runs_here, runtime_for
from edgeq.runtimes.base import LowerOptions, SessionOptions
from edgeq.runtimes.tensorrt.lint import lint, wanted_layers
from edgeq.runtimes.tensorrt.scheme import scheme
from edgeq.targets import list_targets
from tests.quantize import nets

from .broken import BROKEN

PLAIN = Recipe(range=RangeMethod.MINMAX, bias_correction=False, max_predicted_drop=None)


def residual_block():
    """Stem, SiLU residual, a linear residual behind a depthwise convolution, one prediction layer."""
    net = nets.Net(size=16)
    x = net.silu(net.conv("images", 8, 3, name="stem"))
    x = net.op("Add", x, net.silu(net.conv(x, 8, 3, name="inner")), name="residual")
    y = net.conv(net.silu(net.depthwise(x, name="depth")), 8, name="project")
    x = net.op("Add", y, x, name="linear_residual")
    return net.build(net.conv(net.relu(net.conv(x, 8, name="last")), 6, name="predict"))


def qdq_of(proto, target=None):
    _, qdq = nets.quantise(nets.normalised(proto), PLAIN, target or scheme())
    return onnx.load_from_string(nets.qdq_bytes(qdq))


def by_name(model):
    return {node.name: node for node in model.graph.node}


def producers(model):
    return {name: node for node in model.graph.node for name in node.output}


@pytest.fixture(scope="module")
def model():
    return qdq_of(residual_block())


def test_it_lints_clean_and_every_layer_but_the_few_heads_is_foreseen_in_int8(model):
    assert lint(model) == ()
    float_layers = [layer.name for layer in wanted_layers(model, ()) if layer.why_float]
    assert float_layers == ["predict"]


def test_all_is_int8_with_zero_point_0_and_float32_scales_above_0(model):
    constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        assert scale.dtype == np.float32
        assert np.all(scale > 0)
        assert zero.dtype == np.int8
        assert not zero.any()


def test_weights_have_a_scale_per_output_channel_and_biases_stay_float(model):
    constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    made_by = producers(model)
    for name in ("stem", "inner", "depth", "project", "last"):
        node = by_name(model)[name]
        weight = made_by[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert [entry.i for entry in weight.attribute if entry.name == "axis"] == [0]
        assert constants[weight.input[1]].shape == (constants[weight.input[0]].shape[0],)
        assert constants[node.input[2]].dtype == np.float32


def test_both_operands_of_a_residual_add_are_quantised(model):
    made_by = producers(model)
    add = by_name(model)["residual"]
    assert [made_by[name].op_type for name in add.input] == ["DequantizeLinear"] * 2


def test_what_a_layer_makes_goes_into_its_activation_or_add_in_float(model):
    made_by = producers(model)
    linear = by_name(model)["linear_residual"]
    assert [made_by[name].op_type for name in linear.input] == ["Conv", "DequantizeLinear"]
    readers = {name: node for node in model.graph.node for name in node.input}
    for name in ("stem", "inner", "depth", "last", "predict"):
        output = by_name(model)[name].output[0]
        assert output not in readers or readers[output].op_type != "QuantizeLinear"


def test_more_prediction_layers_than_few_are_int8_with_float_scores():
    model = qdq_of(residual_block(), target=replace(scheme(), few_float_heads=0))
    assert not [layer.name for layer in wanted_layers(model, ()) if layer.why_float]
    assert producers(model)[model.graph.output[0].name].op_type != "DequantizeLinear"


def test_a_transposed_convolution_is_quantised_along_axis_1():
    net = nets.Net(size=16)
    x = net.relu(net.conv("images", 8, 3, name="stem"))
    weight = net.constant("up_w", np.random.default_rng(0).normal(size=(8, 6, 2, 2)).astype(np.float32))
    x = net.op("ConvTranspose", x, weight, name="up", strides=[2, 2], kernel_shape=[2, 2], channels=6)
    model = qdq_of(net.build(net.conv(net.relu(x), 4, name="predict")))
    made = producers(model)[by_name(model)["up"].input[1]]
    assert [entry.i for entry in made.attribute if entry.name == "axis"] == [1]
    assert {entry.rule for entry in lint(model)} == {"transposed-convolution"}


def test_a_dead_channel_gets_a_scale_that_tensorrt_takes():
    net = nets.Net(size=16)
    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    weight[2] = 0
    x = net.relu(net.conv("images", 8, 3, name="stem", weight=weight))
    assert lint(qdq_of(net.build(net.conv(x, 4, name="predict")))) == ()


@pytest.mark.parametrize("make", [nets.silu_net, nets.relu6_net, nets.concat_net, nets.classifier_net])
def test_other_networks_lint_clean(make):
    assert lint(qdq_of(make())) == ()


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_constant_operands_lint_clean(op):
    """A constant that is rounded has no zero point; one behind a convolution's fusion is not rounded."""
    net = nets.Net(seed=2)
    x = net.relu(net.conv("images", 8, 3, name="stem"))
    y = net.op(op, x, net.constant("operand", np.linspace(0.1, 2, 8, dtype=np.float32).reshape(1, 8, 1, 1)))
    made = qdq_of(net.build(net.conv(net.relu(net.conv(y, 8, name="last")), 4, name="predict")))
    assert lint(made) == ()
    rounded = {node.input[0] for node in made.graph.node if node.op_type == "DequantizeLinear"}
    assert any("operand" in name for name in rounded) is (op == "Add")


def test_depthwise_inputs_are_equalised_by_default(tmp_path):
    model = nets.float_model(nets.silu_net())
    images = nets.calibration_set(tmp_path, 4)
    made = {
        on: quantize(model, images, scheme(), replace(PLAIN, depthwise_equalization=on), cache_folder=None)
        for on in (None, False)
    }
    assert "equalize" in made[None].timings_s
    assert "equalize" not in made[False].timings_s
    assert b"_equalise" in made[None].qdq
    assert made[None].recipe.depthwise_equalization is None


def test_tuning_keeps_no_more_layers_in_float_than_the_scheme_allows(tmp_path):
    model = nets.float_model(nets.classifier_net(), classes=10)
    images = nets.calibration_set(tmp_path, 4)
    recipe = replace(PLAIN, max_predicted_drop=0.0, max_float_share=1.0)
    made = quantize(model, images, replace(scheme(), max_float_layers=1), recipe, cache_folder=None)
    assert all(len(step.kept_float) <= 1 for step in made.tuning)


def test_lowering_writes_the_model_itself(tmp_path, model):
    data = model.SerializeToString()
    artifact = load_runtime("tensorrt").lower(data, tmp_path, options=LowerOptions())
    assert artifact.path.read_bytes() == data
    assert [path.name for path in artifact.files] == ["model.qdq.onnx"]


@pytest.mark.parametrize("rule", ["zero-point", "bias-dtype", "scale-value", "integer-op"])
def test_lowering_refuses_what_tensorrt_refuses(rule, tmp_path):
    data = BROKEN[rule][0]().SerializeToString()
    with pytest.raises(ModelError) as raised:
        load_runtime("tensorrt").lower(data, tmp_path, options=LowerOptions())
    assert raised.value.fix
    assert not list(tmp_path.iterdir())


def test_plain_onnx_files_stay_with_onnx_runtime(tmp_path):
    assert runtime_for(tmp_path / "model.onnx").name == "onnxruntime"


def test_the_runtime_loads_everywhere_and_says_where_it_does_not_run(monkeypatch):
    tensorrt, onnxruntime = load_runtime("tensorrt"), load_runtime("onnxruntime")
    monkeypatch.setattr("edgeq.runtimes.tensorrt.trtexec.find_trtexec", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not runs_here(tensorrt)
    assert runs_here(onnxruntime)


def test_targets_name_a_capability_that_can_be_checked():
    from edgeq.runtimes.tensorrt.conformance import stand_in

    found = {target.name: target for target in list_targets() if target.runtime == "tensorrt"}
    assert set(found) == {
        "jetson-agx-orin", "jetson-agx-thor", "jetson-orin-nano", "jetson-orin-nx", "nvidia-l4", "nvidia-t4",
    }  # fmt: skip
    for target in found.values():
        assert target.compute_capability is not None
        assert stand_in(target.compute_capability)
        assert all(note.source for note in target.notes)
        assert any("ot measured" in note.text for note in target.notes)
        assert load_runtime("tensorrt").scheme(target) == scheme()


def test_session_options_say_nothing_by_default():
    assert SessionOptions().compute_capability is None
    assert SessionOptions().dla_core is None
