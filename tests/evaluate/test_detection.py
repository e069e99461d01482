"""COCO metrics against pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from edgeq.errors import DataError
from edgeq.evaluate.detection import score_detections
from edgeq.types import Detections, DetectionTruth

from .conftest import random_set

NAMES = tuple("abcde")


def pycocotools_stats(found, truths, names):
    """The referee's mAP 50-95, 50, 75, small, medium, large and its precision array."""
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")

    def rows(boxes, ids, image, **columns):
        for k, (box, class_id) in enumerate(zip(boxes.astype(float), ids, strict=True)):
            x1, y1, x2, y2 = box
            row = {key: values[k].item() for key, values in columns.items()}
            yield {"image_id": image, "category_id": int(class_id), "bbox": [x1, y1, x2 - x1, y2 - y1], **row}

    annotations, results = [], []
    for image, (f, t) in enumerate(zip(found, truths, strict=True), start=1):
        annotations += rows(t.boxes_xyxy, t.class_ids, image, iscrowd=t.crowd, area=t.area_px2)
        results += rows(f.boxes_xyxy, f.class_ids, image, score=f.scores)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": image + 1} for image in range(len(truths))],
            "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
            "annotations": [
                {**row, "iscrowd": int(row["iscrowd"]), "id": k + 1} for k, row in enumerate(annotations)
            ],
        }
        truth.createIndex()
        judge = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats, judge.eval["precision"]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(seed, ties, capfd):
    found, truths = random_set(seed, ties=ties)
    got = score_detections(found, truths, class_names=NAMES)
    assert capfd.readouterr() == ("", "")
    stats, precision = pycocotools_stats(found, truths, NAMES)
    values = [got.map50_95, got.map50, got.map75, got.map_small, got.map_medium, got.map_large]
    np.testing.assert_allclose(values, stats[:6], atol=1e-9)
    per_class = precision[:, :, :, 0, -1].mean(axis=(0, 1))
    np.testing.assert_allclose([c.map50_95 for c in got.per_class], per_class, atol=1e-9)
    assert 0.05 < got.map50_95 < 0.9


def test_perfect_detections_and_none():
    _, truths = random_set(0, crowds=False)
    perfect = [
        Detections(t.boxes_xyxy, np.linspace(1, 0.5, len(t.class_ids), dtype=np.float32), t.class_ids)
        for t in truths
    ]
    assert score_detections(perfect, truths, class_names=NAMES).map50_95 == pytest.approx(1)
    nothing = [Detections(d.boxes_xyxy[:0], d.scores[:0], d.class_ids[:0]) for d in perfect]
    got = score_detections(nothing, truths, class_names=NAMES)
    assert (got.map50_95, got.map50) == (0, 0)


def test_a_class_or_size_without_boxes_is_none():
    box = np.array([[0, 0, 200, 200]], np.float32)
    truth = DetectionTruth(box, np.array([1]), np.array([False]), np.array([40000.0]))
    found = Detections(box, np.array([0.9], np.float32), np.array([1]))
    got = score_detections([found], [truth], class_names=("a", "b"))
    assert got.per_class[0].map50_95 is None
    assert got.per_class[0].box_count == 0
    assert (got.map_small, got.map_medium) == (None, None)
    assert got.map_large == pytest.approx(1)
    assert got.to_json()["per_class"][1]["map50"] == pytest.approx(1)


def test_no_labelled_box_at_all_is_an_error():
    empty = DetectionTruth(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0)
    )
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="labelled box"):
        score_detections([nothing], [empty], class_names=("a",))
