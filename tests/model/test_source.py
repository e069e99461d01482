"""Sources: what is taken, and what is refused in which words."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize.nets import Net, classifier_net, images, quantise, run, yolov8_net

from edgeq.errors import InputError, ModelError, SpecError
from edgeq.model.presets import SpecOverrides
from edgeq.model.source import describe_onnx, load
from edgeq.quantize.insert import model_bytes
from edgeq.types import HeadFamily

METADATA = {
    "task": "detect",
    "stride": "2",
    "imgsz": "[32, 32]",
    "names": "{0: 'bolt', 1: 'nut'}",
    "author": "someone",
}


def detector(**metadata):
    proto = yolov8_net()
    for key, value in {**METADATA, **metadata}.items():
        proto.metadata_props.add(key=key, value=value)
    return proto


@pytest.fixture
def save(tmp_path):
    def write(proto, name="model.onnx"):
        path = tmp_path / name
        path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
        return path

    return write


def refused(path, error, *words, overrides=None):
    """The message names the culprit; nothing is left behind beside the model."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(error) as caught:
        load(path, overrides=overrides)
    assert caught.type in (ModelError, SpecError)
    for word in words:
        assert word in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before
    return caught.value


def test_a_detector_with_metadata(save):
    proto = detector()
    path = save(proto)
    model = load(path)
    assert model.source == "model.onnx"
    assert model.sha256 == hashlib.sha256(model.onnx_bytes).hexdigest()
    assert model.input.shape == (1, 3, 32, 32)
    assert model.head.family is HeadFamily.YOLOV8
    assert model.head.class_names == ("bolt", "nut")
    assert model.parity.max_relative_error <= 1e-5
    assert len(model.notes) >= 3
    picture = images(1)[0]
    np.testing.assert_allclose(
        run(model.onnx_bytes, picture)[0], run(proto, picture)[0], rtol=1e-4, atol=1e-4
    )
    assert load(path) == model


def metadata_of(data):
    return {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}


def test_metadata_reaches_the_qdq_model(save):
    model = load(save(detector()))
    assert metadata_of(model.onnx_bytes) == METADATA
    graph = onnx.load_from_string(model.onnx_bytes)
    _, qdq = quantise(ir.serde.deserialize_model(graph))
    assert metadata_of(model_bytes(qdq)) == METADATA


def test_initializers_that_are_inputs_too_are_no_inputs():
    proto = classifier_net()
    first = proto.graph.initializer[0]
    proto.graph.input.append(helper.make_tensor_value_info(first.name, TensorProto.FLOAT, list(first.dims)))
    inputs, outputs = describe_onnx(proto)
    assert [info.name for info in inputs] == ["images"]
    assert (inputs[0].shape, inputs[0].dtype) == ((1, 3, 32, 32), "float32")
    assert outputs[0].shape == (1, 10)


def test_no_file(tmp_path):
    refused(tmp_path / "nowhere.onnx", ModelError, "nowhere.onnx")


def test_a_folder_is_no_model(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    refused(tmp_path / "folder.onnx", ModelError, "folder.onnx")


@pytest.mark.parametrize(
    "data", [b"", b"not a model", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, bytes(range(256)) * 8]
)
def test_other_files_are_no_onnx(save, data):
    assert "ONNX" in str(refused(save(data), ModelError, "model.onnx"))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_onnx(save, share):
    data = detector().SerializeToString()
    refused(save(data[: int(len(data) * share)]), ModelError, "model.onnx")


def test_two_image_inputs_are_listed(save):
    net = Net()
    net.inputs.append(helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 3, 32, 32]))
    x = net.op("Add", "images", "depth")
    refused(save(net.build(net.conv(x, 4))), SpecError, "images", "depth", "2 inputs")


def test_no_input(save):
    net = Net()
    net.inputs = []
    net.constant("images", np.ones((1, 3, 8, 8), np.float32))
    refused(save(net.build(net.conv("images", 4))), SpecError, "0 inputs")


def dynamic():
    proto = detector()
    for entry in list(proto.metadata_props):
        if entry.key == "imgsz":
            proto.metadata_props.remove(entry)
    for index, name in ((0, "batch"), (2, "height"), (3, "width")):
        proto.graph.input[0].type.tensor_type.shape.dim[index].dim_param = name
    return proto


def test_a_dynamic_size_has_to_be_given(save):
    refused(save(dynamic()), SpecError, "--imgsz")


def test_a_dynamic_size_that_is_given(save):
    model = load(save(dynamic()), overrides=SpecOverrides(size=(32, 32)))
    shape = onnx.load_from_string(model.onnx_bytes).graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [1, 3, 32, 32]
    assert model.input.shape == (1, 3, 32, 32)


def test_a_size_that_the_graph_does_not_take(save):
    """The reshapes inside are made for 32 x 32."""
    error = refused(save(dynamic()), InputError, overrides=SpecOverrides(size=(64, 64)))
    assert error.exit_code == 2


def test_a_fixed_size_is_not_overridden(save):
    refused(save(detector()), SpecError, "32", overrides=SpecOverrides(size=(64, 64)))


# External data


def external(tmp_path, location="weights.bin"):
    proto = detector()
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=64)
    if location != "weights.bin":
        stored = onnx.load(str(path), load_external_data=False)
        for tensor in stored.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(stored.SerializeToString())
    return path


def test_external_data_beside_the_model_is_read(tmp_path):
    model = load(external(tmp_path))
    picture = images(1)[0]
    np.testing.assert_allclose(
        run(model.onnx_bytes, picture)[0], run(detector(), picture)[0], rtol=1e-4, atol=1e-4
    )


def test_missing_external_data_is_named(tmp_path):
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    refused(path, ModelError, "weights.bin", "missing")


def test_truncated_external_data(tmp_path):
    path = external(tmp_path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    refused(path, ModelError, "model.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin", "", "."])
def test_external_data_outside_the_folder_is_never_read(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 1_000_000)
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder, location)
    refused(path, ModelError, "outside")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 1_000_000)
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder, "link.bin")
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    refused(path, ModelError, "outside")


def test_external_data_in_a_constant_node_is_not_read_from_outside(tmp_path):
    (tmp_path / "secret.bin").write_bytes(np.ones(3 * 32 * 32, np.float32).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    net = Net()
    tensor = numpy_helper.from_array(np.ones((1, 3, 32, 32), np.float32), "hidden")
    node = helper.make_node("Constant", [], ["hidden_out"], name="hidden", value=tensor)
    stored = node.attribute[0].t
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    stored.external_data.add(key="location", value="../secret.bin")
    net.nodes.append(node)
    x = net.conv(net.op("Add", "images", "hidden_out", channels=3), 4)
    x = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    path = folder / "model.onnx"
    path.write_bytes(net.build(x, check=False).SerializeToString())
    given = SpecOverrides(family=HeadFamily.CLASSIFIER, preset="imagenet", class_names=tuple("abcd"))
    with pytest.raises(InputError) as caught:
        load(path, overrides=given)
    assert isinstance(caught.value, ModelError), caught.value


# Models of another kind


def test_float16(save):
    proto = detector()
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del proto.graph.value_info[:]
    refused(save(proto), ModelError, "float16", "half")


def test_an_already_quantised_model(save):
    model = load(save(detector()))
    _, qdq = quantise(ir.serde.deserialize_model(onnx.load_from_string(model.onnx_bytes)))
    refused(save(model_bytes(qdq), "int8.onnx"), ModelError, "already quantised")


def test_a_custom_operator_is_named(save):
    proto = detector()
    activation = next(node for node in proto.graph.node if node.op_type == "Sigmoid")
    activation.op_type, activation.domain = "Mystery", "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    refused(save(proto), ModelError, "Mystery")


def test_a_graph_that_is_not_valid(save):
    proto = detector()
    next(node for node in proto.graph.node if node.name == "neck").input[0] = "nowhere"
    refused(save(proto), ModelError, "model.onnx", "not valid")


def test_a_grey_image_model(save):
    net = Net(channels=1)
    refused(save(net.build(net.conv("images", 4))), SpecError)


def test_an_unknown_head_shows_the_choices(save):
    net = Net()
    x = net.reshape(net.conv("images", 7, 3), 1, 7, 1024)
    error = refused(save(net.build(x)), SpecError)
    assert error.fix
