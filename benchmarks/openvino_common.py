"""What the processes of the OpenVINO benchmark share: which images, and a metric for accuracy control."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq import api
from edgeq.bundle.read import Bundle
from edgeq.types import Dataset, DetectionTruth, Sample, TensorInfo

__all__ = ["calibration_samples", "evaluation_set", "metric_of"]


class CompiledSession:
    """An ``openvino.CompiledModel`` as edgeq's evaluation wants it."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self.inputs, self.outputs = map(_ports, (compiled.inputs, compiled.outputs))
        self.details: dict[str, str] = {}
        self.metadata: dict[str, str] = {}

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        self._request.infer([tensor])
        values = [np.array(entry.data) for entry in self._request.output_tensors]
        return {port.name: value for port, value in zip(self.outputs, values, strict=True)}


def _ports(ports: Iterable[Any]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(min(port.get_names()), tuple(port.shape), "float32") for port in ports)


def calibration_samples(bundle: Bundle, calib: Path) -> list[Sample]:
    """The images that the bundle was calibrated on, in its order."""
    listed = bundle.manifest.calibration
    known = {
        sample.key: sample for sample in api.open_dataset(calib, split="train", labels_required=False).samples
    }
    return [known[entry.key] for entry in (listed.images if listed else ())]


def evaluation_set(bundle: Bundle, calib: Path, labels: Path, limit: int | None = None) -> Dataset:
    """Labelled images, those of the calibration left out."""
    dataset = api.open_dataset(labels, split="val")
    used = {sample.path.resolve() for sample in calibration_samples(bundle, calib)}
    samples = tuple(sample for sample in dataset.samples if sample.path.resolve() not in used)
    return dataclasses.replace(dataset, samples=samples[:limit] if limit else samples)


def _labelled(sample: Sample) -> bool:
    return not isinstance(sample.truth, DetectionTruth) or len(sample.truth.boxes_xyxy) > 0


def metric_of(compiled: Any, samples: Sequence[Sample], bundle: Bundle) -> float:
    """mAP 50-95 or top-1, 0..1, on labelled samples; 0 for images without a box, whatever was found.

    NNCF also asks for single images, to rank layers by them.
    """
    manifest = bundle.manifest
    if not any(_labelled(sample) for sample in samples):
        return 0.0
    dataset = Dataset(tuple(samples), manifest.head.class_names, manifest.head.task, "calibration", "train")
    found = api.evaluate(
        CompiledSession(compiled), dataset, spec=manifest.input, head=manifest.head,
        post=manifest.postprocess or api.PostProcess(),
    )  # fmt: skip
    report = found.metrics.to_json()
    return float(report.get("map50_95", report.get("top1", 0.0)))
