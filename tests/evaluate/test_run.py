"""Evaluations and their comparison on images made on the spot, with a model that reads the labels off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeq.errors import DataError
from edgeq.evaluate.run import compare, evaluate, prediction_agreement
from edgeq.types import (
    Dataset,
    DetectionTruth,
    HeadFamily,
    HeadSpec,
    InputSpec,
    PostProcess,
    Sample,
    Task,
    TensorInfo,
)

SPEC = InputSpec(name="images", height_px=64, width_px=64)
NAMES = ("dark", "bright")
BOXES = HeadSpec(family=HeadFamily.YOLOV5, output="out", class_names=NAMES)
CLASSES = HeadSpec(family=HeadFamily.CLASSIFIER, output="out", class_names=NAMES)
POST = PostProcess()


class Fake:
    """Finds the one square that differs from the grey background; ``shift_px`` makes it err."""

    outputs = (TensorInfo("out", (1, 1, 7), "float32"),)
    inputs = (TensorInfo("images", SPEC.shape, "float32"),)

    def __init__(self, *, classify=False, shift_px=0.0):
        self.classify, self.shift_px = classify, shift_px
        self.details = {"runtime": "fake 1"}

    def infer(self, tensor):
        plane = tensor[0, 0] * 255
        bright = plane.max() - 128 > 128 - plane.min()
        if self.classify:
            value = float(bright) if self.shift_px == 0 else 1.0
            return {"out": np.array([[1 - value, value]], np.float32)}
        rows, columns = np.nonzero(abs(plane - 128) > 30)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
        centre, size = (box[:2] + box[2:]) / 2 + self.shift_px, box[2:] - box[:2]
        return {"out": np.array([[[*centre, *size, 1, not bright, bright]]], np.float32)}


def dataset(folder: Path, *, task: Task, count: int = 12) -> Dataset:
    rng = np.random.default_rng(0)
    samples = []
    for index in range(count):
        left, top = rng.integers(8, 80, 2)
        size = 20 + 2 * index
        image = np.full((128, 128, 3), 128, np.uint8)
        image[top : top + size, left : left + size] = 255 * (index % 2)
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), image)
        box = np.array([[left, top, min(left + size, 128), min(top + size, 128)]], np.float32)
        truth = DetectionTruth(box, np.array([index % 2]), np.array([False]), np.array([float(size**2)]))
        samples.append(Sample(path.name, path, truth if task is Task.DETECT else index % 2))
    return Dataset(tuple(samples), NAMES, task, str(folder))


def test_detector_metrics_and_record(tmp_path):
    seen = []
    data = dataset(tmp_path, task=Task.DETECT)
    got = evaluate(
        Fake(), data, spec=SPEC, head=BOXES, post=POST, progress=lambda *step: seen.append(step), workers=2
    )
    assert got.metrics.map50 == pytest.approx(1)
    assert got.metrics.map50_95 > 0.85
    assert seen == [(index + 1, 12) for index in range(12)]
    record = json.loads(json.dumps(got.to_json()))
    assert record["image_count"] == 12
    assert record["post_process"]["confidence"] == 0.001
    assert record["session"] == {"runtime": "fake 1"}
    assert [c["name"] for c in record["per_class"]] == list(NAMES)
    assert (tmp_path / "0.png").name == got.samples[0].key


def test_the_drop_of_a_model_that_errs(tmp_path):
    data = dataset(tmp_path, task=Task.DETECT)
    good, bad = (evaluate(Fake(shift_px=s), data, spec=SPEC, head=BOXES, post=POST) for s in (0.0, 2.0))
    drop = compare(good, bad, replicates=200)
    assert drop.drop_points == pytest.approx((good.metrics.map50_95 - bad.metrics.map50_95) * 100, abs=1e-6)
    assert drop.drop_interval_points[0] > 0
    assert compare(good, good).drop_points == 0


def test_classifier(tmp_path):
    data = dataset(tmp_path, task=Task.CLASSIFY)
    good, bad = (
        evaluate(Fake(classify=True, shift_px=s), data, spec=SPEC, head=CLASSES, post=POST)
        for s in (0.0, 1.0)
    )
    assert (good.metrics.top1, bad.metrics.top1) == (1, 0.5)
    assert good.to_json()["post_process"] is None
    assert compare(good, bad).drop_points == pytest.approx(50)
    assert prediction_agreement(good, bad) == 0.5


def test_different_images_or_post_processing_cannot_be_compared(tmp_path):
    data = dataset(tmp_path, task=Task.DETECT)
    whole = evaluate(Fake(), data, spec=SPEC, head=BOXES, post=POST)
    part = evaluate(Fake(), replace(data, samples=data.samples[:-1]), spec=SPEC, head=BOXES, post=POST)
    other = evaluate(Fake(), data, spec=SPEC, head=BOXES, post=replace(POST, confidence=0.25))
    turned = evaluate(Fake(), replace(data, samples=data.samples[::-1]), spec=SPEC, head=BOXES, post=POST)
    for second, words in (
        (part, r"different images \(12 and 11; for example 11.png"),
        (turned, "another order"),
        (other, "different post-processing"),
    ):
        with pytest.raises(DataError, match=words):
            compare(whole, second)
    with pytest.raises(DataError, match="classifiers only"):
        prediction_agreement(whole, whole)


def test_a_data_set_that_cannot_judge_the_model(tmp_path):
    data = dataset(tmp_path, task=Task.DETECT)
    for wrong, words in (
        (replace(data, task=None), "no labels"),
        (replace(data, task=Task.CLASSIFY), "labelled to classify"),
        (replace(data, samples=()), "no images"),
        (replace(data, class_names=("a", "b", "c")), "3 classes, the model has 2"),
    ):
        with pytest.raises(DataError, match=words):
            evaluate(Fake(), wrong, spec=SPEC, head=BOXES, post=POST)
    unlabelled = replace(data, samples=(replace(data.samples[0], truth=None), *data.samples[1:]))
    with pytest.raises(DataError, match="1 of 12 images have no boxes"):
        evaluate(Fake(), unlabelled, spec=SPEC, head=BOXES, post=POST)
