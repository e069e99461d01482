"""Measures the demo model in float and after two naive INT8 quantisations by ONNX Runtime.

    python -m calib_data.measure

Needs onnxruntime, onnx and pycocotools, not PyTorch. This is on purpose a second, independent way to the
numbers that `edgeq demo` shows: plain onnxruntime, pycocotools and a few lines of numpy.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from calib_data.dataset import letterbox
from calib_data.parts import CLASS_NAMES, Array

CONFIDENCE = 0.001
NMS_IOU = 0.65
MAX_DETECTIONS = 300


@dataclass(frozen=True)
class Sample:
    """One image as the network sees it, and its labels in pixels of the stored image.

    tensor: float32 (1, 3, s, s), RGB, 0..1. boxes: float64 (k, 4), x y w h. x_image = (x_in - pad) / scale.
    """

    tensor: Array
    scale: float
    pad: tuple[int, int]
    size_wh: tuple[int, int]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Result:
    """mAP 0..1 and inference time of one model."""

    map_50_95: float
    map_50: float
    per_class: tuple[float, ...]
    median_ms: float


def load_split(root: Path, split: str, size_px: int) -> list[Sample]:
    """Returns the samples of a split, in the order of the file names."""
    samples = []
    for path in sorted((root / "images" / split).glob("*.jpg")):
        image = cv2.imread(str(path))
        if image is None:
            raise ValueError(f"{path} cannot be read as an image")
        height, width = image.shape[:2]
        boxed = letterbox(image[..., ::-1], size_px)
        tensor = np.ascontiguousarray(boxed.image.transpose(2, 0, 1)[None], np.float32) / 255
        text = (root / "labels" / split / f"{path.stem}.txt").read_text()
        rows = np.array([line.split() for line in text.splitlines()], np.float64).reshape(-1, 5)
        boxes = rows[:, 1:] * [width, height, width, height]
        boxes[:, :2] -= boxes[:, 2:] / 2
        pad = (boxed.pad_x, boxed.pad_y)
        samples.append(Sample(tensor, boxed.scale, pad, (width, height), boxes, rows[:, 0].astype(np.int64)))
    return samples


def nms(boxes: Array, scores: Array) -> NDArray[np.int64]:
    """Returns the indices kept of boxes x1 y1 x2 y2 (k, 4), best first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    while len(order) and len(kept) < MAX_DETECTIONS:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[rest, :2])
        high = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        common = (high - low).clip(0).prod(1)
        order = rest[common / (area[first] + area[rest] - common + 1e-9) <= NMS_IOU]
    return np.array(kept, np.int64)


def detections(output: Array, sample: Sample, image_id: int) -> list[dict[str, Any]]:
    """Returns COCO result rows from one output (1, 4 + classes, n)."""
    rows = output[0].T
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    boxes = np.concatenate([centre - half, centre + half], 1) - np.array(sample.pad * 2)
    boxes = (boxes / sample.scale).clip(0, np.array(sample.size_wh * 2))
    found = []
    for class_id in range(rows.shape[1] - 4):
        scores = rows[:, 4 + class_id]
        passed = np.flatnonzero(scores > CONFIDENCE)
        found += [(scores[i], class_id, boxes[i]) for i in passed[nms(boxes[passed], scores[passed])]]
    found.sort(key=lambda row: -row[0])
    return [
        {
            "image_id": image_id,
            "category_id": class_id,
            "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])],
            "score": float(score),
        }
        for score, class_id, b in found[:MAX_DETECTIONS]
    ]


def ground_truth(samples: list[Sample]) -> COCO:
    """Returns the labels as a COCO data set."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, sample in enumerate(samples):
        images.append({"id": image_id, "width": sample.size_wh[0], "height": sample.size_wh[1]})
        for box, class_id in zip(sample.boxes.tolist(), sample.classes.tolist(), strict=True):
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": class_id, "bbox": box}
            annotations.append(row | {"area": box[2] * box[3], "iscrowd": 0})
    coco = COCO()
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASS_NAMES)]
    coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def evaluate(model: Path, samples: list[Sample], truth: COCO) -> Result:
    """Returns mAP and the median time of one inference on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    found, times_ns = [], []
    for image_id, sample in enumerate(samples):
        started = time.perf_counter_ns()
        (output,) = session.run(None, {"images": sample.tensor})
        times_ns.append(time.perf_counter_ns() - started)
        found += detections(output, sample, image_id)
    median_ms = float(np.median(times_ns)) / 1e6
    if not found:
        return Result(0.0, 0.0, (0.0,) * len(CLASS_NAMES), median_ms)
    with contextlib.redirect_stdout(io.StringIO()):
        scorer = COCOeval(truth, truth.loadRes(found), "bbox")
        scorer.params.maxDets = [1, 10, MAX_DETECTIONS]
        scorer.evaluate()
        scorer.accumulate()
    precision = scorer.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class)
    valid = np.where(precision > -1, precision, np.nan)
    per_class = tuple(float(value) for value in np.nanmean(valid, (0, 1)))
    return Result(float(np.nanmean(valid)), float(np.nanmean(valid[0])), per_class, median_ms)


class _Reader(CalibrationDataReader):
    """Feeds the calibration images to ONNX Runtime's calibrater."""

    def __init__(self, samples: list[Sample]) -> None:
        self.feeds = iter([{"images": sample.tensor} for sample in samples])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def tail_nodes(model: Path) -> list[str]:
    """Returns the names of the nodes that are no convolution and lead to none: decoding after the heads."""
    nodes = list(onnx.load(model).graph.node)
    leads: set[str] = set()  # tensors from which a convolution can be reached
    tail = []
    for node in reversed(nodes):
        if node.op_type == "Conv" or leads & set(node.output):
            leads |= set(node.input)
        else:
            tail.append(node.name)
    return tail


def main() -> None:
    """Prints a table: float, ONNX Runtime's defaults, per channel with a float tail."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "demo")
    parser.add_argument("--model", type=Path, default=None)
    args = parser.parse_args()
    model = args.model or args.data / "model.onnx"
    size_px = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[3].dim_value
    calib, held_out = load_split(args.data, "calib", size_px), load_split(args.data, "eval", size_px)
    truth = ground_truth(held_out)
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime's advice is beside the point: naive on purpose
    with tempfile.TemporaryDirectory() as folder:
        default, careful = Path(folder) / "default.onnx", Path(folder) / "careful.onnx"
        quantize_static(model, default, _Reader(calib))
        quantize_static(model, careful, _Reader(calib), per_channel=True, nodes_to_exclude=tail_nodes(model))
        print(f"{'':34}  mAP50-95   mAP50    ms   per class ({', '.join(CLASS_NAMES)})")
        rows = {
            "float": model,
            "INT8, ONNX Runtime defaults": default,
            "INT8, per channel, tail in float": careful,
        }
        for title, path in rows.items():
            result = evaluate(path, held_out, truth)
            row = f"{result.map_50_95:8.4f}  {result.map_50:6.4f}  {result.median_ms:5.1f}"
            print(f"{title:34}  {row}   " + " ".join(f"{value:.3f}" for value in result.per_class))


if __name__ == "__main__":
    main()
