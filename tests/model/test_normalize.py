"""Normalisation: one form, the same outputs, and refusal of what cannot be taken."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize.nets import NETS, Net, images, op_counts, relu6_net, run, silu_net

from edgeq.errors import ModelError, SpecError
from edgeq.model import normalize
from edgeq.model.normalize import MIN_OPSET, normalise


def normal(proto, shape=None):
    shape = shape or [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    return normalise(proto, input_name=proto.graph.input[0].name, input_shape=shape)


def assert_same(proto, data, *, tolerance=1e-5):
    size = proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value or 32
    for seed in range(2):
        picture = images(1, size=size, seed=seed)[0]
        for expected, got in zip(run(proto, picture), run(data, picture), strict=True):
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", NETS)
def test_the_outputs_are_the_sources(name):
    proto = NETS[name]()
    before = proto.SerializeToString()
    data, parity = normal(proto)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    assert_same(proto, data)
    assert parity.max_relative_error <= 1e-5
    assert (parity.source_opset, parity.opset) == (17, 17)
    got, source = onnx.load_from_string(data).graph, proto.graph
    assert [v.name for v in got.input] == [v.name for v in source.input]
    assert [v.name for v in got.output] == [v.name for v in source.output]


@pytest.mark.parametrize("name", NETS)
def test_every_node_has_its_own_name_and_every_value_a_shape(name):
    model = ir.serde.deserialize_model(onnx.load_from_string(normal(NETS[name]())[0]))
    names = [node.name for node in model.graph]
    assert all(names)
    assert len(set(names)) == len(names)
    for node in model.graph:
        for value in node.outputs:
            assert value.shape is not None, value.name
            assert all(isinstance(size, int) for size in value.shape), value.name
    assert "Constant" not in {node.op_type for node in model.graph}


def old_net(opset):
    """Ops whose form changed between 9 and 13: attributes that became inputs."""
    net = Net(opset=opset, seed=1)
    x = net.conv("images", 8, 3, stride=2, name="stem")
    if opset < 11:
        x = net.op("Clip", x, name="clip", min=0.0, max=6.0)
        left = net.op("Slice", x, name="slice", axes=[1], starts=[0], ends=[4])
        x = net.op("Upsample", left, net.constant("s", np.asarray([1, 1, 2, 2], np.float32)), mode="nearest")
    else:
        x = net.relu6(x)
        left, right = net.op("Split", x, name="split", axis=1, split=[4, 4], outputs=2)
        x = net.op("Add", left, net.op("ReduceMean", right, axes=[2, 3], keepdims=1))
    net.channels[x] = 4
    x = net.op("Unsqueeze", net.op("Squeeze", net.conv(x, 4, name="head"), axes=[0]), axes=[0])
    return net.build(x)


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_old_opsets_are_upgraded_with_the_same_output(opset):
    proto = old_net(opset)
    data, parity = normal(proto)
    assert_same(proto, data)
    model = onnx.load_from_string(data)
    assert next(e.version for e in model.opset_import if e.domain == "") >= MIN_OPSET
    assert (parity.source_opset, parity.opset) == (opset, MIN_OPSET)
    assert {"stem", "head"} <= {node.name for node in model.graph.node}


def test_batch_norm_is_folded():
    net = Net(seed=1)
    x = net.conv("images", 8, 3, name="stem", bias=False)
    for key, low in (("scale", 0.5), ("shift", -0.5), ("mean", -0.2), ("var", 0.3)):
        net.constant(key, net.random.uniform(low, 1.5, 8).astype(np.float32))
    x = net.relu(net.op("BatchNormalization", x, "scale", "shift", "mean", "var", name="bn"))
    proto = net.build(net.conv(x, 4, name="head"))
    data, _ = normal(proto)
    assert op_counts(onnx.load_from_string(data))["BatchNormalization"] == 0
    assert_same(proto, data)


def test_constants_computed_by_nodes_are_folded():
    net = Net(seed=1)
    x = net.relu(net.conv("images", 8, 3, name="stem"))
    shape = net.op("Shape", x)
    first = net.op("Gather", shape, net.constant("zero_index", np.asarray([0, 1], np.int64)))
    target = net.op("Concat", first, net.constant("minus", np.asarray([-1], np.int64)), axis=0)
    proto = net.build(net.op("Reshape", x, target, name="flat"))
    data, _ = normal(proto)
    assert set(op_counts(onnx.load_from_string(data))) <= {"Conv", "Relu", "Reshape", "Identity"}
    assert_same(proto, data)


def test_no_fusion_leaves_standard_onnx():
    """What ONNX Runtime fuses into its own operators elsewhere stays standard here."""
    net = Net(seed=1, size=16)
    x = net.conv("images", 8, 3, name="stem")
    half, one = net.constant("half", np.float32(0.5)), net.constant("one", np.float32(1))
    root = net.constant("root", np.float32(np.sqrt(2)))
    gelu = net.op("Mul", net.op("Mul", x, net.op("Add", net.op("Erf", net.op("Div", x, root)), one)), half)
    data, _ = normal(net.build(net.conv(gelu, 4, name="head")))
    assert {node.domain for node in onnx.load_from_string(data).graph.node} <= {"", "ai.onnx"}


def test_nameless_nodes_get_names_of_their_own():
    proto = silu_net()
    for node in proto.graph.node:
        node.name = ""
    model = onnx.load_from_string(normal(proto)[0])
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "" not in names


def test_a_symbolic_size_becomes_the_one_asked_for():
    proto = relu6_net()
    for index, name in ((0, "batch"), (2, "height"), (3, "width")):
        proto.graph.input[0].type.tensor_type.shape.dim[index].dim_param = name
    for shape in ([1, 3, 32, 32], [1, 3, 48, 64]):
        data, _ = normal(proto, shape)
        got = onnx.load_from_string(data).graph
        assert [dim.dim_value for dim in got.input[0].type.tensor_type.shape.dim] == shape
        assert [dim.dim_value for dim in got.output[0].type.tensor_type.shape.dim] == [
            1, 8, shape[2] // 2, shape[3] // 2,
        ]  # fmt: skip


def test_a_fixed_size_is_not_bent():
    with pytest.raises(SpecError, match="fixed to 32") as caught:
        normal(silu_net(), [1, 3, 64, 64])
    assert "--imgsz" in caught.value.fix


def test_float16_weights_are_refused():
    proto = silu_net()
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    with pytest.raises(ModelError, match="float16") as caught:
        normal(proto)
    assert "half" in caught.value.fix


def quantised(kind):
    net = Net(seed=1)
    x = net.relu(net.conv("images", 4, 3, name="stem"))
    scale, zero = net.constant("scale", np.float32(0.1)), net.constant("zero_point", np.uint8(0))
    if kind == "static":
        x = net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)
        return net.build(net.conv(x, 4, name="head"))
    quantised, found, point = net.op("DynamicQuantizeLinear", x, outputs=3)
    weight = net.constant("w8", np.ones((4, 4, 1, 1), np.int8))
    if kind == "dynamic-conv":
        y = net.op("ConvInteger", quantised, weight, point)
    else:
        y = net.op("MatMulInteger", quantised, net.constant("m8", np.ones((32, 4), np.int8)), point)
    y = net.op("Cast", y, to=TensorProto.FLOAT)
    return net.build(net.op("Mul", y, found))


@pytest.mark.parametrize(
    "kind",
    [
        "static",
        "dynamic-conv",
        "dynamic-matmul",
    ],
)
def test_quantised_models_are_refused(kind):
    with pytest.raises(ModelError, match="already quantised"):
        normal(quantised(kind))


@pytest.mark.parametrize(("domain", "op"), [("com.example", "Mystery"), ("com.microsoft", "QuickGelu")])
def test_operators_outside_the_standard_are_named(domain, op):
    net = Net(seed=1)
    x = net.op(op, net.conv("images", 4, 3, name="stem"), name="custom", domain=domain)
    proto = net.build(net.conv(x, 4, name="head"), check=False)
    proto.opset_import.append(helper.make_opsetid(domain, 1))
    with pytest.raises(ModelError, match=op):
        normal(proto)


def test_a_float64_input_is_refused_in_words():
    net = Net(seed=1)
    net.inputs = [helper.make_tensor_value_info("images", TensorProto.DOUBLE, [1, 3, 32, 32])]
    x = net.op("Cast", "images", to=TensorProto.FLOAT, channels=3)
    with pytest.raises(ModelError, match=r"float64|double"):
        normal(net.build(net.conv(x, 4, name="head")))


def damaged(change):
    """Normalisation with a fold that breaks the graph."""
    original = normalize._fold

    def fold(model):
        made = onnx.load_from_string(original(model))
        for tensor in made.graph.initializer:
            if tensor.name == "pointwise_w":
                tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
        return made.SerializeToString()

    return fold


@pytest.mark.parametrize("factor", [1.01, 0.0, -1.0])
def test_a_graph_that_computes_something_else_is_never_returned(monkeypatch, factor):
    monkeypatch.setattr(normalize, "_fold", damaged(lambda w: (w * factor).astype(np.float32)))
    with pytest.raises(ModelError, match="differs from the source"):
        normal(silu_net())


def test_a_graph_that_computes_nan_is_never_returned(monkeypatch):
    monkeypatch.setattr(normalize, "_fold", damaged(lambda w: np.full_like(w, np.nan)))
    with pytest.raises(ModelError):
        normal(silu_net())


def test_normalising_twice_changes_nothing_more():
    first, _ = normal(silu_net())
    second, _ = normal(onnx.load_from_string(first))
    left, right = (onnx.load_from_string(data).graph for data in (first, second))
    assert [node.SerializeToString() for node in left.node] == [n.SerializeToString() for n in right.node]


def test_the_same_source_gives_the_same_bytes():
    assert normal(silu_net())[0] == normal(silu_net())[0]


def test_metadata_of_the_source_is_kept():
    net = Net(seed=1)
    proto = net.build(
        net.conv("images", 4, 3, name="head"), metadata={"names": "{0: 'bolt'}", "stride": "32"}
    )
    model = onnx.load_from_string(normal(proto)[0])
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "names": "{0: 'bolt'}",
        "stride": "32",
    }
