"""Are a model's boxes in pixels of its input or in 0..1? Neither shapes nor names tell, one inference does.

Exporters to TFLite divide boxes by the input's size so that they share an INT8 scale with the scores. Every
cell of the grid gives a box whether it sees something or not, so the farthest centre lies near the far edge:
near 1, or near the size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.types import HeadFamily, HeadSpec, InputSpec, Layout

__all__ = ["measure_normalized_boxes"]

_FARTHEST = 2.0
"""Centres in 0..1 may lie a little outside; the smallest grid in pixels ends far beyond."""

Infer = Callable[[npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]


def measure_normalized_boxes(infer: Infer, *, spec: InputSpec, head: HeadSpec) -> bool | None:
    """True: 0..1; False: pixels; None: the head has no such boxes, or gave none.

    Args:
        infer: outputs by name for one input tensor of ``spec.shape``.
        spec: the session's input.
        head: the session's head.
    """
    if head.family not in (HeadFamily.YOLOV5, HeadFamily.YOLOV8, HeadFamily.END_TO_END):
        return None
    outputs = infer(_noise(spec))
    raw = outputs.get(head.output)
    if raw is None or raw.ndim != 3:
        return None
    per_box = {HeadFamily.YOLOV8: 4 + head.class_count, HeadFamily.END_TO_END: 6}.get(
        head.family, 5 + head.class_count
    )
    table = raw[0] if raw.shape[2] == per_box else raw[0].T
    places = table[:, :4] if head.family is HeadFamily.END_TO_END else table[:, :2]
    finite = np.abs(places[np.isfinite(places)])
    farthest = float(finite.max(initial=0.0))
    return None if farthest == 0.0 else farthest <= _FARTHEST


def _noise(spec: InputSpec) -> npt.NDArray[np.float32]:
    """Grey noise as the model sees it, the same at every call."""
    shape = (1, spec.height_px, spec.width_px, 3)
    pixels = np.random.default_rng(0).uniform(96, 160, shape).astype(np.float32)
    tensor = (pixels - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    if spec.layout is Layout.NCHW:
        tensor = tensor.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(tensor, dtype=np.float32)
