"""The same on a real model and real images, where they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeq.data.images import read_image
from edgeq.data.preprocess import preprocess
from edgeq.model.source import load
from edgeq.quantize.graph import is_depthwise, node_name
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.quantize.split_heads import split_heads
from edgeq.quantize.teacher import layer_errors

from .nets import quantise, run


@pytest.fixture(scope="module")
def yolox(shared_data):
    path = shared_data / "models" / "yolox_nano_coco_416.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    model = load(path)
    files = sorted((shared_data / "coco-mini" / "images" / "train2017").glob("*.jpg"))[:4]
    return path, model, [preprocess(read_image(file), model.input)[0] for file in files]


def test_the_normalised_model_answers_as_the_file_does(yolox):
    path, model, pictures = yolox
    expected, got = run(path.read_bytes(), pictures[0])[0], run(model.onnx_bytes, pictures[0])[0]
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()
    counts = {node.op_type for node in onnx.load_from_string(model.onnx_bytes).graph.node}
    assert "Slice" not in counts


def test_the_first_depthwise_convolution_is_the_noisiest(yolox):
    """With plain min-max, as in DESIGN section 8: one tensor ruins the model."""
    _, model, pictures = yolox
    graph = ir.serde.deserialize_model(onnx.load_from_string(model.onnx_bytes))
    recipe = Recipe(range=RangeMethod.MINMAX, bias_correction=False)
    _, qdq = quantise(graph, recipe, pictures=pictures)
    errors = layer_errors(graph, qdq, pictures[:2])
    worst = max(errors, key=lambda name: errors[name].noise)
    first = next(node_name(node) for node in graph.graph if is_depthwise(node))
    assert worst == first


def test_yolov5s_fused_heads_come_apart_exactly(shared_data):
    path = shared_data / "models" / "yolov5n_coco_fp32_416.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    model = load(path)
    found = split_heads(ir.serde.deserialize_model(onnx.load_from_string(model.onnx_bytes)))
    assert len(found.layers) == 9
    assert found.heavy_scores == {"/m.0/Conv[4:85]", "/m.1/Conv[4:85]"}
    file = min((shared_data / "coco-mini" / "images" / "train2017").glob("*.jpg"))
    picture, _ = preprocess(read_image(file), model.input)
    expected, got = run(model.onnx_bytes, picture)[0], run(model_bytes(found.model), picture)[0]
    assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()
