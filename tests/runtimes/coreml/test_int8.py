"""QDQ models as packages: integers without a flip, products to 1e-5, sizes, precisions, image inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import ModelError
from edgeq.model.source import load
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.runtimes.base import LowerOptions
from edgeq.runtimes.coreml import RUNTIME
from edgeq.runtimes.coreml.agreement import compare_ops
from edgeq.runtimes.coreml.image import image_input
from edgeq.runtimes.coreml.interpret.program import load_program
from edgeq.runtimes.coreml.scheme import scheme
from edgeq.types import ColorOrder, InputSpec, Layout
from tests.cli.conftest import make_detector
from tests.quantize import nets
from tests.runtimes.coreml.helpers import Graph, image, interpret, package

SHAPE = (1, 8, 8, 8)


def pair(g, value, scale, zero=0, dtype=np.int8, axis=None):
    grid = [g.constant(np.asarray(scale, np.float32)), g.constant(np.asarray(zero, dtype))]
    more = {} if axis is None else {"axis": axis}
    return g.op("DequantizeLinear", g.op("QuantizeLinear", value, *grid, **more), *grid, **more)


def stored(g, weight, axis=0, dtype=np.int8):
    """A weight as integers behind DequantizeLinear, one scale per channel."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    scale = (np.abs(rows).max(axis=1) / 127).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    middle = 128 if dtype is np.uint8 else 0
    integers = (np.rint(weight / scale.reshape(shape)) + middle).astype(dtype)
    zero = g.constant(np.full(scale.shape, middle, dtype))
    return g.op("DequantizeLinear", g.constant(integers), g.constant(scale), zero, axis=axis)


def net(*, zero=0, dtype=np.int8, channel_grids=False, weight_dtype=np.int8):
    """Convolution, SiLU, depthwise convolution, residual add, transposed convolution, Gemm: all in INT8."""
    g = Graph(*SHAPE)
    rng = np.random.default_rng(0)

    def weight(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    x = pair(g, "x", 0.03, zero, dtype)
    a = g.op(
        "Conv", x, stored(g, weight(8, 8, 3, 3), dtype=weight_dtype), g.constant(weight(8)), pads=[1] * 4
    )
    a = g.op("Mul", a, g.op("Sigmoid", a))
    grid = (np.linspace(0.01, 0.03, 8), np.full(8, zero), dtype, 1) if channel_grids else (0.02, zero, dtype)
    rounded = pair(g, a, *grid)
    b = g.op("Conv", rounded, stored(g, weight(8, 1, 3, 3)), g.constant(weight(8)), pads=[1] * 4, group=8)
    c = g.op("Add", pair(g, a, 0.02, zero, dtype), b)
    d = g.op(
        "ConvTranspose", pair(g, c, 0.03, zero, dtype), stored(g, weight(8, 4, 2, 2), axis=1), strides=[2, 2]
    )
    flat = g.op("Flatten", pair(g, d, 0.02, zero, dtype))
    out = g.op("Gemm", flat, stored(g, weight(1024, 5), axis=1), g.constant(weight(5)))
    return g.build(out)


FORMS = {
    "symmetric": {},
    "zero point": {"zero": 7},
    "uint8": {"zero": 120, "dtype": np.uint8},
    "grids per channel": {"channel_grids": True},
    "grids per channel with zero points": {"channel_grids": True, "zero": -5},
    "uint8 weights": {"weight_dtype": np.uint8},
}


@pytest.mark.parametrize("form", FORMS)
def test_no_integer_flips_and_products_agree(form, tmp_path):
    agreement = compare_ops(net(**FORMS[form]), tmp_path / "m.mlpackage", image(*SHAPE), half=False)
    assert agreement.counts["quantize"] == agreement.counts["dequantize"] == 5
    assert agreement.counts["conv"] == 2
    assert agreement.counts["conv_transpose"] == agreement.counts["linear"] == 1
    assert agreement.quantised_count == 4 * 512 + 1024
    assert agreement.flips == 0
    assert agreement.worst(products=True) < 1e-5
    assert agreement.worst(products=False) < 1e-6


def test_a_wrong_program_is_noticed(tmp_path, monkeypatch):
    """The comparison can fail: a scale that is off by a hundredth flips integers."""
    from edgeq.runtimes.coreml.ops import rounding

    right = rounding._half_safe
    monkeypatch.setattr(rounding, "_half_safe", lambda emit, scale: right(emit, scale) * np.float32(1.01))
    agreement = compare_ops(net(), tmp_path / "m.mlpackage", image(*SHAPE), half=False)
    assert agreement.flips > 20
    assert agreement.worst(products=True) > 1e-3


def test_in_float16_only_scales_and_storage_round(tmp_path):
    agreement = compare_ops(net(), tmp_path / "m.mlpackage", image(*SHAPE), half=True)
    assert agreement.flips < agreement.quantised_count / 100
    assert agreement.worst(products=True) < 2e-3
    assert agreement.worst(products=False) < 2e-3


def test_weights_are_stored_as_integers_and_computed_with_in_float16(tmp_path):
    program = load_program(package(net(), tmp_path, half=True))
    assert len(program.integer_weights) == 4
    kinds = {operation.kind: operation.dtypes for operation in program.operations}
    assert kinds["quantize"] == ("int8",)
    assert kinds["conv"] == kinds["silu"] == ("fp16",)


def test_integers_of_sixteen_bits_are_refused(tmp_path):
    g = Graph(1, 4, opset=21)
    with pytest.raises(ModelError, match="int16"):
        package(g.build(pair(g, "x", 0.1, 0, np.int16)), tmp_path)


NETS = {
    "silu": nets.silu_net, "residual": nets.residual_net, "concat": nets.concat_net,
    "relu6": nets.relu6_net, "classifier": nets.classifier_net, "yolov8": nets.yolov8_net,
    "yolox": nets.yolox_net, "attention": nets.attention_net,
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_what_the_core_quantises_agrees_op_by_op(name, tmp_path):
    model = nets.normalised(NETS[name]())
    _, rounded = nets.quantise(model, target=scheme())
    picture = nets.images(1, size=nets.size_of(model))[0]
    agreement = compare_ops(nets.qdq_bytes(rounded), tmp_path / "m.mlpackage", picture, half=False)
    assert agreement.counts["quantize"] > 0
    assert agreement.flips == 0
    assert agreement.worst(products=True) < 1e-5
    assert agreement.worst(products=False) < 1e-5
    # Its scales are float16's own, so float16 rounds the same inputs to the same integers.
    agreement = compare_ops(nets.qdq_bytes(rounded), tmp_path / "half.mlpackage", picture, half=True)
    assert agreement.counts["quantize"] > 0
    assert agreement.flips == 0
    assert agreement.worst(products=True) < 2e-3


@pytest.mark.parametrize("name", ["silu", "residual", "yolov8", "yolox"])
def test_the_whole_float32_program_gives_the_simulations_bits(name, tmp_path):
    """So interpreted in float32 a bundle's metric is the simulated one: no rounding goes another way."""
    model = nets.normalised(NETS[name]())
    _, rounded = nets.quantise(model, target=scheme())
    data = nets.qdq_bytes(rounded)
    picture = nets.images(1, size=nets.size_of(model))[0]
    names = [output.name for output in onnx.load_from_string(data).graph.output]
    found = interpret(package(data, tmp_path), picture)
    for output, wanted in zip(names, nets.run(data, picture, names), strict=True):
        np.testing.assert_array_equal(found[output], wanted)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "d.onnx"
    onnx.save(make_detector(), path)
    return load(path)


def test_the_scheme_is_apples_form():
    _, made = nets.quantise(nets.normalised(nets.silu_net()), target=scheme())
    graph = onnx.load_from_string(nets.qdq_bytes(made)).graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    rounded = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert rounded
    for node in rounded:
        assert constants[node.input[1]].size == 1
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()
    biases = [node.input[2] for node in graph.node if node.op_type == "Conv" and len(node.input) > 2]
    assert biases
    assert all(constants[name].dtype == np.float32 for name in biases)


def test_precisions_by_size(detector, tmp_path):
    kinds = {
        "float32": LowerOptions(name="float32"),
        "float16": LowerOptions(name="float16", float16_weights=True),
        "default": LowerOptions(name="default", default_float=True),
        "int8-weights": LowerOptions(name="int8-weights", int8_weights=True),
    }
    weights = {}
    for name, options in kinds.items():
        made = RUNTIME.lower(detector.onnx_bytes, tmp_path, options=options)
        (blob,) = (file for file in made.files if file.name == "weight.bin")
        weights[name] = blob.stat().st_size
    assert weights["float16"] == weights["default"]
    assert weights["int8-weights"] < weights["float16"] < weights["float32"]


def test_int8_weights_agree_with_float(detector, tmp_path):
    made = RUNTIME.lower(detector.onnx_bytes, tmp_path, options=LowerOptions(int8_weights=True))
    exact = RUNTIME.lower(detector.onnx_bytes, tmp_path, options=LowerOptions(name="exact"))
    tensor = np.random.default_rng(0).random(detector.input.shape).astype(np.float32)
    found, wanted = (interpret(entry.path, tensor)["output0"] for entry in (made, exact))
    assert len(load_program(made.path).integer_weights) == 4
    noise = np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))
    assert 1e-6 < noise < 0.02


def test_the_same_model_gives_the_same_bytes(tmp_path):
    made = []
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        path = package(net(), folder, half=True)
        made.append({f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()})
    assert set(made[0]) == set(made[1])
    for name, content in made[0].items():
        assert content == made[1][name], name


SPEC = InputSpec("x", 8, 8)


def test_an_image_input_computes_the_spec(tmp_path):
    spec = InputSpec("x", 8, 8, mean=(10.0, 20.0, 30.0), std=(50.0, 50.0, 50.0))
    g = Graph(1, 3, 8, 8)
    data = g.build(g.op("Relu", "x"))
    made = RUNTIME.lower(data, tmp_path, options=LowerOptions(input=spec))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.float32)
    (found,) = interpret(made.path, pixels).values()
    wanted = np.maximum((pixels - np.reshape(spec.mean, (1, 3, 1, 1))) / 50.0, 0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_which_specs_allow_an_image():
    assert image_input(None) is None
    assert image_input(InputSpec("x", 8, 8, std=(58.4, 57.1, 57.4))) is None
    assert image_input(InputSpec("x", 8, 8, layout=Layout.NHWC)) is None
    plain = image_input(SPEC)
    assert plain.scale == 1 / 255
    assert plain.bias == (0.0, 0.0, 0.0)
    assert image_input(InputSpec("x", 8, 8, color=ColorOrder.BGR)).color is ColorOrder.BGR


def test_labels_go_along_unless_the_source_has_its_own(detector, tmp_path):
    g = Graph(1, 3, 8, 8)
    data = g.build(g.op("Relu", "x"))
    plain = RUNTIME.lower(data, tmp_path, options=LowerOptions(labels=("cat", "dog")))
    assert load_program(plain.path).metadata["names"] == "{0: 'cat', 1: 'dog'}"
    options = LowerOptions(name="own", labels=("something", "else"))
    own = RUNTIME.lower(detector.onnx_bytes, tmp_path, options=options)
    assert "something" not in load_program(own.path).metadata["names"]
    assert load_program(own.path).metadata["stride"] == "8"


def test_two_inputs_are_refused(tmp_path):
    entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", entries[:2], entries[2:])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelError, match="2 inputs"):
        RUNTIME.lower(data.SerializeToString(), tmp_path, options=LowerOptions())


def test_few_prediction_convolutions_stay_float_and_a_classifiers_layer_does_not():
    """Three or fewer convolutions of a head decide boxes; a classifier's one Gemm decides a rank."""
    kinds = {"yolox": nets.yolox_net, "classifier": nets.classifier_net}
    recipe = Recipe(range=RangeMethod.MINMAX, bias_correction=False, max_predicted_drop=None)
    plans = {
        name: nets.quantise(nets.normalised(make()), recipe, scheme())[0] for name, make in kinds.items()
    }
    assert any("prediction layer" in op.reason for op in plans["yolox"].float_ops)
    assert "Gemm" in {op.op_type for op in plans["classifier"].int8_ops}
