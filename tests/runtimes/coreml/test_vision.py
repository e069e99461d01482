"""The pipeline for Vision: boxes and scores are edgeq's own decoding; NMS itself runs on Apple's machines."""

from __future__ import annotations

import coremltools
import numpy as np
import onnx
import onnx.version_converter
import pytest
from onnx import TensorProto, helper

from edgeq.errors import InputError, SpecError
from edgeq.model.decode import decode_rows
from edgeq.runtimes.coreml.detections import BOXES, SCORES, with_boxes_and_scores
from edgeq.runtimes.coreml.package import WEIGHTS_FILE
from edgeq.runtimes.coreml.vision import write_detector, write_vision
from edgeq.types import HeadFamily, HeadSpec, InputSpec, PostProcess
from tests.quantize.nets import run
from tests.runtimes.coreml.helpers import Graph, interpret

NAMES = ("cat", "dog", "bird")
SPEC = InputSpec("x", 16, 32)
POST = PostProcess(confidence=0.3, iou=0.5)
FAMILIES = [HeadFamily.YOLOX, HeadFamily.YOLOV5, HeadFamily.YOLOV8]


def detector(family):
    """10 cells of strides 8 and 16 behind one convolution."""
    g = Graph(1, 3, 16, 32)
    columns = len(NAMES) + (4 if family is HeadFamily.YOLOV8 else 5)
    rng = np.random.default_rng(0)
    weight = g.constant(rng.normal(0, 0.2, (columns, 3, 8, 8)).astype(np.float32))
    fine = g.op("Conv", "x", weight, strides=[8, 8])
    coarse = g.op("AveragePool", fine, kernel_shape=[2, 2], strides=[2, 2])
    flat = [
        g.op("Reshape", part, g.constant(np.array([1, columns, -1], np.int64))) for part in (fine, coarse)
    ]
    value = g.op("Sigmoid", g.op("Concat", *flat, axis=2))
    if family is not HeadFamily.YOLOV8:
        value = g.op("Transpose", value, perm=[0, 2, 1])
    g.op("Relu", value)  # an output that nobody asks for
    return g.build(value, g.nodes[-1].output[0]), HeadSpec(family, value, NAMES, strides=(8, 16))


def picture():
    return np.random.default_rng(1).random((1, 3, 16, 32)).astype(np.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_and_scores_are_edgeqs_own_decoding(family, tmp_path):
    data, head = detector(family)
    boxes, scores = decode_rows({head.output: run(data, picture(), [head.output])[0]}, head=head, spec=SPEC)
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    wanted = np.concatenate([centre, size], axis=1) / np.array([32, 16, 32, 16])
    decoded = with_boxes_and_scores(data, head=head, spec=SPEC)
    assert [output.name for output in onnx.load_from_string(decoded).graph.output] == [BOXES, SCORES]
    path = write_detector(data, tmp_path / "d.mlpackage", spec=SPEC, head=head, half=False).path
    found = interpret(path, picture() * 255)
    np.testing.assert_allclose(found[BOXES], wanted, rtol=1e-4, atol=1e-6)
    best = np.where(scores == scores.max(axis=1, keepdims=True), scores, 0)
    np.testing.assert_allclose(found[SCORES], best, rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(best) == len(
        scores
    )  # so that Vision's sum over classes is the best class's score


def test_newer_operator_sets_do_too(tmp_path):
    data, head = detector(HeadFamily.YOLOV8)
    newer = onnx.version_converter.convert_version(onnx.load_from_string(data), 18).SerializeToString()
    found = [
        interpret(
            write_detector(each, tmp_path / f"{name}.mlpackage", spec=SPEC, head=head, half=False).path,
            picture() * 255,
        )
        for name, each in (("old", data), ("new", newer))
    ]
    onnx.checker.check_model(with_boxes_and_scores(newer, head=head, spec=SPEC), full_check=True)
    np.testing.assert_array_equal(found[0][SCORES], found[1][SCORES])


def test_the_pipeline_is_what_vision_takes(tmp_path):
    data, head = detector(HeadFamily.YOLOV8)
    made = write_vision(data, tmp_path / "app.mlpackage", spec=SPEC, head=head, post=POST)
    assert tmp_path / "app.mlpackage" / WEIGHTS_FILE in made.files
    spec = coremltools.models.MLModel(str(made.path), skip_model_load=True).get_spec()
    assert spec.WhichOneof("Type") == "pipeline"
    image, *thresholds = spec.description.input
    assert image.type.WhichOneof("Type") == "imageType"
    assert [entry.name for entry in thresholds] == ["iouThreshold", "confidenceThreshold"]
    assert all(entry.type.isOptional for entry in thresholds)
    assert [entry.name for entry in spec.description.output] == ["confidence", "coordinates"]
    first, last = spec.pipeline.models
    assert [entry.name for entry in first.description.output] == [BOXES, SCORES]
    nms = last.nonMaximumSuppression
    assert (nms.confidenceInputFeatureName, nms.coordinatesInputFeatureName) == (SCORES, BOXES)
    assert nms.iouThreshold == pytest.approx(0.5)
    assert nms.confidenceThreshold == pytest.approx(0.3)
    assert tuple(nms.stringClassLabels.vector) == NAMES
    widths = [
        entry.type.multiArrayType.shapeRange.sizeRanges[1].upperBound for entry in last.description.output
    ]
    assert widths == [3, 4]


def test_what_needs_no_suppression_is_refused():
    data, head = detector(HeadFamily.YOLOV8)
    for family in (HeadFamily.CLASSIFIER, HeadFamily.END_TO_END):
        with pytest.raises(SpecError, match="needs no NMS"):
            with_boxes_and_scores(data, head=HeadSpec(family, head.output, NAMES), spec=SPEC)
    with pytest.raises(SpecError, match="does not fit"):
        with_boxes_and_scores(data, head=HeadSpec(HeadFamily.YOLOV8, head.output, NAMES[:2]), spec=SPEC)
    with pytest.raises(SpecError, match="no output"):
        with_boxes_and_scores(data, head=HeadSpec(HeadFamily.YOLOV8, "other", NAMES), spec=SPEC)


def test_an_input_that_is_no_image_is_refused(tmp_path):
    data, head = detector(HeadFamily.YOLOV8)
    spec = InputSpec("x", 16, 32, std=(255.0, 254.0, 253.0))
    with pytest.raises(InputError, match="Vision feeds images"):
        write_vision(data, tmp_path / "app.mlpackage", spec=spec, head=head, post=POST)


def test_shapes_that_are_not_static_are_refused():
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n", 7]) for name in "xy"]
    data = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:])).SerializeToString()
    with pytest.raises(SpecError, match="does not fit"):
        with_boxes_and_scores(data, head=HeadSpec(HeadFamily.YOLOV8, "y", NAMES), spec=SPEC)
