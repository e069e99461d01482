"""Labelled images and detections made on the spot, and the shared real ones where they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgeq.types import Detections, DetectionTruth, TensorInfo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("EDGEQ_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"shared test data not found at {folder} (set EDGEQ_SHARED_DATA)")
    return folder


class OnnxSession:
    """A plain ONNX Runtime session in the form of edgeq's seam."""

    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(TensorInfo(v.name, tuple(v.shape), "float32") for v in self.session.get_inputs())
        self.outputs = tuple(
            TensorInfo(v.name, tuple(v.shape), "float32") for v in self.session.get_outputs()
        )
        self.details = {"runtime": f"onnxruntime {onnxruntime.__version__}"}

    def infer(self, tensor):
        values = self.session.run(None, {self.inputs[0].name: tensor})
        return {info.name: value for info, value in zip(self.outputs, values, strict=True)}


def random_set(seed, *, images=40, classes=5, noise_px=4.0, crowds=True, ties=False, spurious=30):
    """Labelled boxes and detections of them: some shifted, some missed, some doubled, some out of nothing."""
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for _ in range(images):
        count = int(rng.integers(0, 12))
        boxes, ids = _boxes(rng, count), rng.integers(0, classes, count)
        crowd = rng.random(count) < (0.2 if crowds else 0)
        size = boxes[:, 2:] - boxes[:, :2]
        area = size.prod(axis=1).astype(np.float64) * rng.uniform(0.4, 1, count)
        truths.append(DetectionTruth(boxes, ids.astype(np.int64), crowd, area))
        found.append(
            _detect(rng, boxes, ids, classes=classes, noise_px=noise_px, ties=ties, spurious=spurious)
        )
    return tuple(found), tuple(truths)


def _boxes(rng, count):
    corner = rng.uniform(0, 400, (count, 2))
    return (
        np.concatenate([corner, corner + rng.uniform(8, 160, (count, 2))], axis=1).round(1).astype(np.float32)
    )


def _detect(rng, boxes, ids, *, classes, noise_px, ties, spurious):
    seen = rng.random(len(boxes)) < 0.8
    near = np.repeat(boxes[seen], 2, axis=0)
    near = near + rng.normal(0, noise_px, near.shape)
    extra = _boxes(rng, int(rng.integers(0, spurious)))
    all_boxes = np.concatenate([near, extra]).astype(np.float32)
    all_ids = np.concatenate([np.repeat(ids[seen], 2), rng.integers(0, classes, len(extra))]).astype(np.int64)
    scores = rng.random(len(all_boxes)).astype(np.float32)
    if ties:
        scores = (np.ceil(scores * 4) / 4).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return Detections(all_boxes[order], scores[order], all_ids[order])
