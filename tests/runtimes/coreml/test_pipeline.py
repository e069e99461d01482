"""The saved pipeline, interpreted: wiring, suppression as documented, edgeq's own detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.data.dataset import open_dataset
from edgeq.data.select import select
from edgeq.data.stream import iter_tensors
from edgeq.errors import ModelError
from edgeq.model.decode import InputPixels, decode_detections
from edgeq.model.source import load
from edgeq.runtimes.coreml.interpret.detect import detect
from edgeq.runtimes.coreml.interpret.pipeline import check_pipeline, load_pipeline
from edgeq.runtimes.coreml.interpret.program import open_package
from edgeq.runtimes.coreml.interpret.suppression import Suppression
from edgeq.runtimes.coreml.lower import write_package
from edgeq.runtimes.coreml.source import read_source
from edgeq.runtimes.coreml.vision import write_vision
from edgeq.types import HeadFamily, InputSpec, PostProcess
from tests.quantize.nets import run
from tests.runtimes.coreml.helpers import interpret
from tests.runtimes.coreml.test_vision import FAMILIES, NAMES, SPEC, detector

DEMO = Path(__file__).parents[3] / "calib_data" / "demo"
POST = PostProcess(confidence=0.3, iou=0.4, multi_label=False)


def assert_same(found, wanted, *, px):
    np.testing.assert_array_equal(found.class_ids, wanted.class_ids)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes_xyxy, wanted.boxes_xyxy, atol=px)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_detections_are_edgeqs_own(family, tmp_path):
    data, head = detector(family)
    path = write_vision(data, tmp_path / "app.mlpackage", spec=SPEC, head=head, post=POST, half=False).path
    pipeline = load_pipeline(path)
    assert pipeline.inputs == ("x", "iouThreshold", "confidenceThreshold")
    assert pipeline.suppression.labels == NAMES
    counts = []
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (1, 3, 16, 32))
        tensor = (pixels / 255).astype(np.float32)
        outputs = {head.output: run(data, tensor, [head.output])[0]}
        for post, given in (
            (POST, {}),
            (PostProcess(confidence=0.1, iou=0.7, multi_label=False), {"iou": 0.7, "confidence": 0.1}),
        ):
            wanted = decode_detections(outputs, head=head, spec=SPEC, geometry=InputPixels(), post=post)
            found = detect(pipeline, tensor, spec=SPEC, geometry=InputPixels(), **given)
            assert_same(found, wanted, px=1e-3)
            counts.append(len(wanted.scores))
    assert 0 < sum(counts) < 8 * 10


def test_of_real_images_it_keeps_what_edgeq_keeps_of_the_package(tmp_path):
    model = load(DEMO / "model.onnx")
    post = PostProcess(confidence=0.25, iou=0.45, multi_label=False)
    app = write_vision(
        model.onnx_bytes, tmp_path / "app.mlpackage", spec=model.input, head=model.head, post=post
    )
    pipeline = load_pipeline(app.path)
    plain = write_package(read_source(model.onnx_bytes), tmp_path / "plain.mlpackage", half=True)
    samples = select(open_dataset(DEMO / "data.yaml", split="val"), 4).samples
    count = 0
    for _, tensor, geometry in iter_tensors(samples, model.input):
        place = {"spec": model.input, "geometry": geometry}
        wanted = decode_detections(interpret(plain.path, tensor), head=model.head, post=post, **place)
        assert_same(detect(pipeline, tensor, **place), wanted, px=1e-3)
        count += len(wanted.scores)
    assert count > 4


def suppression(**changed):
    settings = {"iou": 0.5, "least_confidence": 0.3, "per_class": True}
    return Suppression(
        **{**settings, **changed}, confidence="c", coordinates="b", kept_confidence="kc",
        kept_coordinates="kb", iou_input="i", least_confidence_input="l", labels=NAMES,
    )  # fmt: skip


BOXES = np.array([[0.5, 0.5, 0.2, 0.2], [0.55, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]])
"""The second overlaps the first by 0.15 / 0.25 = 0.6, the third by all."""
SCORES = np.array([[0.9, 0.1, 0.0], [0.8, 0.7, 0.0], [0.2, 0.6, 0.0], [0.0, 0.0, 0.25]])


@pytest.mark.parametrize(
    ("changed", "given", "kept"),
    [
        ({}, {}, [0, 2]),
        ({"per_class": False}, {}, [0]),
        ({"iou": 0.7}, {}, [0, 1, 2]),
        ({"iou": 0.7, "per_class": False}, {}, [0, 1]),
        ({}, {"i": 0.7}, [0, 1, 2]),
        ({}, {"l": 0.25}, [0, 2, 3]),
        ({"least_confidence": 0.95}, {}, []),
        ({"iou": 1.0, "per_class": False}, {}, [0, 1, 2]),
    ],
)
def test_suppression_is_the_documented_one(changed, given, kept):
    found = suppression(**changed).run({"b": BOXES, "c": SCORES, **given})
    np.testing.assert_array_equal(found["kb"], BOXES[kept])
    np.testing.assert_array_equal(found["kc"], SCORES[kept])


def renamed_score(spec):
    spec.pipeline.models[0].description.output[1].name = "scores"


def another_type(spec):
    spec.pipeline.models[1].description.input[0].type.multiArrayType.dataType = 65600


def no_threshold(spec):
    del spec.pipeline.models[1].description.input[-1]


def optional_threshold(spec):
    spec.pipeline.models[1].description.input[-1].type.isOptional = True


def unknown_threshold(spec):
    del spec.description.input[-1]


def too_few_labels(spec):
    del spec.pipeline.models[1].nonMaximumSuppression.stringClassLabels.vector[-1]


def one_name_twice(spec):
    spec.pipeline.names[1] = spec.pipeline.names[0]


def no_suppression(spec):
    del spec.pipeline.models[1]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (renamed_score, "which nothing gives"),
        (another_type, "in another type"),
        (no_threshold, "a suppression that reads"),
        (optional_threshold, "optional for nms itself"),
        (unknown_threshold, "'confidenceThreshold', which nothing gives"),
        (too_few_labels, "2 labels for columns"),
        (one_name_twice, "the names"),
        (no_suppression, "a pipeline of mlProgram"),
    ],
)
def test_parts_that_do_not_fit_are_noticed(broken, why, tmp_path):
    data, head = detector(HeadFamily.YOLOV8)
    path = write_vision(data, tmp_path / "app.mlpackage", spec=SPEC, head=head, post=POST).path
    spec, _ = open_package(path)
    check_pipeline(spec)
    broken(spec)
    with pytest.raises(ModelError, match=why):
        check_pipeline(spec)


def test_what_is_fed_has_to_be_an_input(tmp_path):
    data, head = detector(HeadFamily.YOLOV8)
    made = write_vision(data, tmp_path / "app.mlpackage", spec=SPEC, head=head, post=POST)
    pipeline = load_pipeline(made.path)
    for feeds in ({}, {"x": np.zeros((1, 3, 16, 32), np.float32), "scoreThreshold": 0.5}):
        with pytest.raises(ModelError, match="the pipeline takes x, iouThreshold, confidenceThreshold"):
            pipeline.run(feeds)
    with pytest.raises(ModelError, match="takes images"):
        spec = InputSpec("x", 16, 32, std=(255.0, 254.0, 253.0))
        detect(pipeline, np.zeros((1, 3, 16, 32), np.float32), spec=spec, geometry=InputPixels())
