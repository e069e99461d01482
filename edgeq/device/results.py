"""What edgeq makes of a device's answers: predictions, layers and health, where they can be true at all."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from edgeq.benchmark.telemetry import HealthRecord, HealthSample
from edgeq.device.agent.wire import array_from_text
from edgeq.device.answers import LayersPart, nonsense
from edgeq.runtimes.base import LayerAudit, LayerPrecision
from edgeq.types import Detections, HeadSpec, PostProcess, Prediction, Task

__all__ = ["health_record", "health_samples", "layer_audits", "prediction"]

_FARTHEST_PX = 1e6
_SAMPLES: TypeAdapter[list[HealthSample]] = TypeAdapter(list[HealthSample])
_HEALTH: TypeAdapter[HealthRecord] = TypeAdapter(HealthRecord)
_Kind = TypeVar("_Kind")


def health_samples(data: Any, device: str) -> list[HealthSample]:
    """Samples of the health record."""
    return _adapted(_SAMPLES, data.get("samples") if isinstance(data, dict) else None, device)


def health_record(data: Any, device: str) -> HealthRecord:
    """The health record."""
    return _adapted(_HEALTH, data, device)


def prediction(
    data: Any, head: HeadSpec, post: PostProcess, size_px: tuple[int, int] | None, device: str
) -> tuple[str, Prediction]:
    """The image's SHA-256 and what was found in it.

    Args:
        data: the part.
        head: the model's.
        post: what was asked for; there cannot be more detections.
        size_px: width and height of the image, where known: no box lies outside.
        device: for the message.

    Raises:
        DeviceError: values that no model of that head gives.
    """
    try:
        image, scores = str(data["image"]), array_from_text(data["scores"])
        if head.task is Task.CLASSIFY:
            if len(scores) != head.class_count or not np.isfinite(scores).all():
                raise ValueError(f"{len(scores)} class scores")
            return image, scores
        boxes = array_from_text(data["boxes"]).reshape(-1, 4)
        class_ids = np.asarray(data["class_ids"], dtype=np.int64).reshape(-1)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise nonsense(device, f"a prediction: {error}") from error
    if not len(boxes) == len(scores) == len(class_ids) <= post.max_detections:
        raise nonsense(device, f"{len(boxes)} boxes, {len(scores)} scores, {len(class_ids)} classes")
    limit = np.array([*(size_px or (_FARTHEST_PX, _FARTHEST_PX))] * 2, np.float32)
    sane = (boxes >= 0).all() and (boxes <= limit).all() and (scores >= 0).all() and (scores <= 1.001).all()
    if not sane or ((class_ids < 0) | (class_ids >= head.class_count)).any():
        raise nonsense(device, "detections outside of the image, the classes or the scores that can be")
    return image, Detections(boxes, scores, class_ids)


def layer_audits(part: LayersPart, device: str) -> list[LayerAudit]:
    """Layers of an audit."""
    try:
        return [
            LayerAudit(entry.name, entry.op, LayerPrecision(entry.precision), entry.kernel, entry.reason)
            for entry in part.layers
        ]
    except ValueError as error:
        raise nonsense(device, str(error)) from error


def _adapted(adapter: TypeAdapter[_Kind], data: Any, device: str) -> _Kind:
    if not _finite(data):
        raise nonsense(device, "the health record: not a number")
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise nonsense(device, f"the health record: {error.errors()[0]['msg']}") from error


def _finite(data: Any) -> bool:
    if isinstance(data, dict):
        return all(map(_finite, data.values()))
    if isinstance(data, list):
        return all(map(_finite, data))
    return not isinstance(data, float) or math.isfinite(data)
