"""Float mAP of real models against a few independent lines with onnxruntime and pycocotools.

Nothing of edgeq is used by the reference. It takes a box for every class over the confidence, suppresses
class by class in the model's input, and only then cuts boxes at the image's edge; the best class only would
give 0.286 and 0.269, cutting first 0.4490 instead of 0.4489.
"""

from __future__ import annotations

import contextlib
import io
import json

import cv2
import numpy as np
import pytest

from edgeq.data.dataset import open_dataset
from edgeq.evaluate.run import compare, evaluate
from edgeq.model.presets import SpecOverrides
from edgeq.model.recognise import recognise
from edgeq.types import PostProcess

from .conftest import OnnxSession

SIZE = 416
# mAP 50-95 and 50, as in the shared data's README.
PUBLISHED = {"yolox_nano_coco_416": (0.2908, 0.4575), "yolov5n_coco_fp32_416": (0.2810, 0.4489)}


def reference_map(model_path, coco_folder, *, yolox):
    import onnxruntime
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    session = onnxruntime.InferenceSession(str(model_path), providers=["CPUExecutionProvider"])
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(coco_folder / "annotations" / "instances_val2017.json"))
    categories, results = sorted(truth.getCatIds()), []
    for image_id, entry in truth.imgs.items():
        picture = cv2.imread(str(coco_folder / "images" / "val2017" / entry["file_name"]))
        tensor, ratio, left, top = reference_input(picture, yolox=yolox)
        raw = session.run(None, {"images": tensor})[0][0]
        boxes, scores, classes = reference_boxes(raw, yolox=yolox)
        boxes = (boxes - [left, top, left, top]) / ratio
        limit = [entry["width"], entry["height"]] * 2
        for i in reference_nms(boxes, scores, classes)[:300]:
            x1, y1, x2, y2 = np.clip(boxes[i], 0, limit).tolist()
            results.append(
                {
                    "image_id": image_id,
                    "category_id": categories[classes[i]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(scores[i]),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[0], judge.stats[1]


def reference_input(picture, *, yolox):
    height, width = picture.shape[:2]
    ratio = min(SIZE / height, SIZE / width)
    new_h, new_w = (
        (int(height * ratio), int(width * ratio)) if yolox else (round(height * ratio), round(width * ratio))
    )
    left, top = (0, 0) if yolox else (round((SIZE - new_w) / 2 - 0.1), round((SIZE - new_h) / 2 - 0.1))
    canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
    canvas[top : top + new_h, left : left + new_w] = cv2.resize(picture, (new_w, new_h))
    pixels = canvas if yolox else canvas[..., ::-1] / 255.0
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32), ratio, left, top


def reference_boxes(raw, *, yolox):
    centres, sizes = raw[:, :2], raw[:, 2:4]
    if yolox:
        cells, strides = [], []
        for stride in (8, 16, 32):
            y, x = np.mgrid[: SIZE // stride, : SIZE // stride]
            cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
            strides.append(np.full((x.size, 1), stride))
        strides = np.concatenate(strides)
        centres, sizes = (centres + np.concatenate(cells)) * strides, np.exp(sizes) * strides
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    scores = raw[:, 4:5] * raw[:, 5:]
    rows, classes = np.nonzero(scores > 0.001)
    return boxes[rows], scores[rows, classes], classes


def reference_nms(boxes, scores, classes):
    kept, areas = [], (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for class_id in np.unique(classes):
        rest = np.flatnonzero(classes == class_id)
        rest = rest[np.argsort(-scores[rest], kind="stable")]
        while len(rest):
            best, rest = rest[0], rest[1:]
            kept.append(best)
            corner = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(
                boxes[best, :2], boxes[rest, :2]
            )
            inter = np.maximum(corner, 0).prod(axis=1)
            rest = rest[inter <= 0.65 * (areas[best] + areas[rest] - inter)]
    return sorted(kept, key=lambda i: -scores[i])


@pytest.mark.parametrize("name", PUBLISHED)
def test_float_map_equals_the_reference(name, shared_data):
    pytest.importorskip("pycocotools")
    session = OnnxSession(shared_data / "models" / f"{name}.onnx")
    specs = recognise(inputs=session.inputs, outputs=session.outputs, metadata={}, overrides=SpecOverrides())
    data = open_dataset(shared_data / "coco-mini" / "annotations" / "instances_val2017.json")
    got = evaluate(session, data, spec=specs.input, head=specs.head, post=PostProcess(), workers=2)
    expected = reference_map(
        shared_data / "models" / f"{name}.onnx", shared_data / "coco-mini", yolox="yolox" in name
    )
    assert got.image_count == 204
    assert (got.metrics.map50_95, got.metrics.map50) == pytest.approx(expected, abs=1e-4)
    assert (got.metrics.map50_95, got.metrics.map50) == pytest.approx(PUBLISHED[name], abs=1e-4)
    assert compare(got, got, replicates=50).drop_points == 0


def test_efficientnet_top1_is_the_published_one(shared_data):
    session = OnnxSession(shared_data / "models" / "efficientnet_lite0_imagenet_fp32_224.onnx")
    overrides = SpecOverrides(preset="tf-lite")
    specs = recognise(inputs=session.inputs, outputs=session.outputs, metadata={}, overrides=overrides)
    data = open_dataset(shared_data / "imagenet-mini" / "labels.csv")
    got = evaluate(session, data, spec=specs.input, head=specs.head, post=PostProcess(), workers=2)
    assert got.metrics.top1 == pytest.approx(0.888, abs=0.005)
