"""Real detectors and a classifier: the file computes what the source does."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.model.normalize import normalise
from edgeq.runtimes.base import LowerOptions
from edgeq.runtimes.tflite.lower import METADATA_NAME, convert, lower
from tests.conftest import ROOT
from tests.quantize.nets import run
from tests.runtimes.tflite.helpers import delegates, litert, ops, run_tflite

SCORES = {"output": (2, slice(4, None)), "output0": (1, slice(4, None))}
"""Axis of the scores and where they are; boxes before them are in pixels."""


def normalised_file(path: Path):
    model = onnx.load(path)
    entry = model.graph.input[0]
    shape = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    return normalise(model, input_name=entry.name, input_shape=shape)[0], shape


def worst_error(name: str, found, expected) -> float:
    if name in SCORES and expected.ndim == 3:
        axis, part = SCORES[name]
        where = tuple(part if index == axis else slice(None) for index in range(3))
        found, expected = found[where], expected[where]
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize(
    "file",
    ["yolox_nano_coco_416.onnx", "yolov5n_coco_fp32_416.onnx", "efficientnet_lite0_imagenet_fp32_224.onnx"],
)
def test_float_models_agree_with_their_source(shared_data, file):
    data, shape = normalised_file(shared_data / "models" / file)
    made = convert(data, LowerOptions())
    assert delegates(made) == (1, [])
    scale = 255.0 if "yolox" in file else 1.0
    image = np.random.default_rng(0).random(shape, dtype=np.float32) * np.float32(scale)
    names = [output.name for output in onnx.load_from_string(data).graph.output]
    found = run_tflite(made, image)
    for name, expected in zip(names, run(data, image, names), strict=True):
        assert found[name].shape == expected.shape
        assert worst_error(name, found[name], expected) < 1e-3
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=5e-3)


@pytest.fixture(scope="module")
def demo():
    data, shape = normalised_file(ROOT / "calib_data" / "demo" / "model.onnx")
    return data, shape, convert(data, LowerOptions())


def test_the_demo_detector_agrees_with_its_source(demo):
    data, shape, made = demo
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    found, expected = run_tflite(made, image)["output0"], run(data, image)[0]
    assert worst_error("output0", found, expected) < 1e-3
    assert delegates(made) == (1, [])
    assert ops(made)["TRANSPOSE"] == 1


def test_the_signature_and_the_tensors_have_the_sources_names(demo):
    _, shape, made = demo
    reader = litert.Interpreter(model_content=made)
    assert reader.get_signature_list() == {"serving_default": {"inputs": ["images"], "outputs": ["output0"]}}
    (entry,), (result,) = reader.get_input_details(), reader.get_output_details()
    assert (entry["name"], list(entry["shape"])) == ("images", [shape[0], *shape[2:], shape[1]])
    assert result["name"] == "output0"
    names = [tensor["name"] for tensor in reader.get_tensor_details()]
    assert len(set(names) & {"images", "output0"}) == 2


def test_metadata_tells_the_source_and_its_nodes(demo):
    data, _, made = demo
    content = json.loads(metadata(made)[METADATA_NAME])
    source = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert content["source"] == source
    assert "names" in content["source"]
    convolutions = {node.name for node in onnx.load_from_string(data).graph.node if node.op_type == "Conv"}
    reader = litert.Interpreter(model_content=made)
    tensors = {tensor["name"] for tensor in reader.get_tensor_details()}
    written = {name for tensor, (name, op) in content["nodes"].items() if op == "Conv" and tensor in tensors}
    assert written == convolutions
    assert metadata(made)["min_runtime_version"].rstrip(b"\0") == b"2.9.0"


def metadata(data: bytes) -> dict[str, bytes]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    return {
        entry.name.decode(): bytes(model.buffers[entry.buffer].data.astype(np.uint8))
        for entry in model.metadata
    }


def test_buffers_start_at_multiples_of_sixteen(demo):
    """As the schema demands: a board maps the file and reads weights where they lie."""
    _, _, made = demo
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(made, 0)
    checked = 0
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            assert made[:4] != b"" and buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0
            checked += 1
    assert checked > 100
    assert made[4:8] == b"TFL3"
    assert struct.unpack_from("<I", made)[0] < len(made)


def test_the_same_model_gives_the_same_bytes(demo, tmp_path):
    data, _, made = demo
    artifact = lower(data, tmp_path, LowerOptions(name="again"))
    assert artifact.files == (artifact.path,) == (tmp_path / "again.tflite",)
    assert artifact.path.read_bytes() == made
