"""What a package leaves out, and that its program still computes the same."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from edgeq.errors import ModelError
from edgeq.quantize.recipe import Precision, Recipe, Rule
from edgeq.runtimes.coreml.compact import compact_package
from edgeq.runtimes.coreml.emit import short_names
from edgeq.runtimes.coreml.interpret.program import load_program, open_package
from edgeq.runtimes.coreml.package import METADATA_NAME, MODEL_FILE, WEIGHTS_FILE
from edgeq.runtimes.coreml.scheme import scheme
from tests.quantize import nets
from tests.runtimes.coreml.helpers import Graph, assert_same, image, package


def block_of(path):
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((path / MODEL_FILE).read_bytes())
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return block


def net():
    """Two 1x1 convolutions with equal weights, a table that is added twice, a strided convolution."""
    g = Graph(1, 8, 8, 8)
    table = np.arange(512, dtype=np.float32).reshape(1, 8, 8, 8)
    kernel = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8, 1, 1)
    a = g.op("Conv", "x", g.constant(kernel), g.constant(np.arange(8, dtype=np.float32)))
    b = g.op("Conv", g.op("Add", a, g.constant(table)), g.constant(kernel.copy()))
    c = g.op("Add", b, g.constant(table.copy()))
    strided = g.constant(np.ones((4, 8, 3, 3), np.float32))
    return g.build(g.op("Conv", c, strided, strides=[2, 2], pads=[1, 1, 1, 1]))


def test_nothing_is_said_twice(tmp_path):
    path = package(net(), tmp_path)
    operations = block_of(path).operations
    kinds = [operation.type for operation in operations if operation.type != "const"]
    assert kinds == ["conv", "add", "conv", "add", "conv"]
    first, second, strided = (operation for operation in operations if operation.type == "conv")
    # Core ML's loaders want all of them, defaults or not.
    required = {"x", "weight", "strides", "dilations", "groups", "pad", "pad_type"}
    assert set(first.inputs) == required | {"bias"}
    assert set(second.inputs) == set(strided.inputs) == required
    for argument in ("strides", "dilations", "groups", "pad", "pad_type"):
        assert first.inputs[argument] == second.inputs[argument]
    assert first.inputs["bias"].arguments[0].WhichOneof("binding") == "value"
    assert not any(operation.attributes for operation in operations if operation.type != "const")
    # The table, which is read twice, and the strided kernel are the only large arrays.
    assert struct.unpack_from("<I", (path / WEIGHTS_FILE).read_bytes())[0] == 2
    assert_same(net(), image(1, 8, 8, 8), rtol=1e-4)


def test_names_that_core_ml_takes_are_not_written_once_more(tmp_path):
    g = Graph(1, 4, 4, 4)
    kernel = g.constant(np.ones((4, 4, 1, 1), np.float32))
    value = g.op("Relu", g.op("Conv", "x", kernel))
    value = g.op("Conv", value, kernel)
    g.nodes[0].name, g.nodes[2].name = "Conv_0", "/model.1/conv"
    own = json.loads(load_program(package(g.build(g.op("Relu", value)), tmp_path)).metadata[METADATA_NAME])
    assert own["layers"] == {"_model_1_conv": "/model.1/conv"}


def test_restored_weights_have_no_name_and_all_that_they_need(tmp_path):
    path = package(net(), tmp_path, int8_weights=True)
    restored = [entry for entry in block_of(path).operations if entry.type.startswith("constexpr")]
    assert len(restored) == 3
    for entry in restored:
        assert set(entry.attributes) == {"quantized_data", "scale", "zero_point", "axis"}
    assert len(load_program(path).integer_weights) == 3


def optional_ops():
    """Operations with arguments that coremltools' builder calls optional."""
    g = Graph(1, 8, 8, 8)
    x = g.op("Conv", "x", g.constant(np.ones((8, 8, 3, 3), np.float32)), pads=[1] * 4)
    x = g.op("ConvTranspose", x, g.constant(np.ones((8, 8, 1, 1), np.float32)))
    pooled = [g.op(kind, x, kernel_shape=[2, 2]) for kind in ("MaxPool", "AveragePool")]
    x = g.op("ReduceMean", g.op("Concat", *pooled, axis=1), axes=[2, 3])
    x, _ = g.op("TopK", x, g.constant(np.array([2], np.int64)), axis=1, outputs=2)
    return g.build(x)


def test_what_core_ml_calls_required_is_written(tmp_path):
    from coremltools.converters.mil.frontend.milproto.load import load

    path = package(optional_ops(), tmp_path)
    spec, weights = open_package(path)
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights)
    defaults = {entry.op_type: entry.default_inputs() for entry in program.functions["main"].operations}
    written = {entry.type: set(entry.inputs) for entry in block_of(path).operations}
    kinds = {"conv", "conv_transpose", "max_pool", "avg_pool", "concat", "reduce_mean", "topk"}
    assert kinds <= set(written)
    for kind in kinds:
        assert {name for name, value in defaults[kind].items() if value is not None} <= written[kind], kind


def test_weights_of_another_form_are_refused(tmp_path):
    path = package(net(), tmp_path)
    data = bytearray((path / WEIGHTS_FILE).read_bytes())
    data[64:68] = b"\0\0\0\0"
    (path / WEIGHTS_FILE).write_bytes(data)
    with pytest.raises(ModelError, match="form that edgeq does not know"):
        compact_package(path)


def test_short_names_are_different_and_none_is_a_word():
    names = short_names()
    found = [next(names) for _ in range(4000)]
    assert len(set(found)) == 4000
    assert max(map(len, found)) == 3
    assert not {"fn", "i4", "pad"} & set(found)


def test_a_float_layer_has_integer_weights_unless_the_recipe_asks(tmp_path):
    model = nets.normalised(nets.silu_net())
    layer = next(node.name for node in model.graph if node.op_type == "Conv")
    _, asked = nets.quantise(model, target=scheme(), recipe=Recipe(rules=(Rule(layer, Precision.FLOAT),)))
    (tmp_path / "asked").mkdir()
    exact = load_program(package(nets.qdq_bytes(asked), tmp_path / "asked", half=True))
    plan, made = nets.quantise(model, target=scheme(), kept_float={layer: "tuned"})
    assert plan.ops[layer].precision is Precision.FLOAT
    assert layer in plan.stored_weights
    every = load_program(package(nets.qdq_bytes(made), tmp_path, half=True))
    convolutions = [operation for operation in every.operations if operation.kind == "conv"]
    assert {operation.arguments["weight"].name for operation in convolutions} == every.integer_weights
    assert len(exact.integer_weights) == len(every.integer_weights) - 1
