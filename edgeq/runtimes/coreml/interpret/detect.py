"""What a pipeline detects in an image, as edgeq's own decoding would say it, to compare the two."""

from __future__ import annotations

import numpy as np

from edgeq.errors import ModelError
from edgeq.model.decode import BoxMapping, corners
from edgeq.runtimes.coreml.image import image_input
from edgeq.runtimes.coreml.interpret.pipeline import Pipeline
from edgeq.types import Detections, Float32Array, InputSpec

__all__ = ["detect"]


def detect(
    pipeline: Pipeline,
    tensor: Float32Array,
    *,
    spec: InputSpec,
    geometry: BoxMapping,
    iou: float | None = None,
    confidence: float | None = None,
    limit: int | None = None,
) -> Detections:
    """Detections of one image, best score first.

    Args:
        pipeline: of a detector.
        tensor: float32 (1, 3, h, w), normalised as the spec says; the pipeline gets its pixels.
        spec: the detector's input.
        geometry: leads back to the original image.
        iou: given to the pipeline; None: its own.
        confidence: the same.
        limit: at most so many; None: all.

    Raises:
        ModelError: the spec fits no image input.
    """
    image = image_input(spec)
    if image is None:
        raise ModelError("the pipeline takes images, and the spec's tensor is none")
    bias = np.asarray(image.bias, np.float32).reshape(1, 3, 1, 1)
    feeds = {pipeline.inputs[0]: np.rint((tensor - bias) / np.float32(image.scale)).astype(np.float32)}
    given = {pipeline.suppression.iou_input: iou, pipeline.suppression.least_confidence_input: confidence}
    found = pipeline.run({**feeds, **{name: value for name, value in given.items() if value is not None}})
    scores = found[pipeline.suppression.kept_confidence][:limit]
    boxes = found[pipeline.suppression.kept_coordinates][:limit]
    boxes = boxes * np.array([spec.width_px, spec.height_px] * 2, np.float32)
    return Detections(
        boxes_xyxy=np.asarray(geometry.to_original(corners(boxes)), np.float32),
        scores=scores.max(axis=1),
        class_ids=scores.argmax(axis=1),
    )
