"""The vocabulary of edgeq: enums and frozen dataclasses, and nothing that computes much.

Everything that passes between modules is one of these. The module imports numpy only, so the
device side can use it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Union

import numpy as np
import numpy.typing as npt

__all__ = [
    "COMPUTE_OPS",
    "ColorOrder",
    "Dataset",
    "DetectionTruth",
    "Detections",
    "Float32Array",
    "HeadFamily",
    "HeadSpec",
    "InputSpec",
    "IntegerType",
    "Layout",
    "ModelPrecision",
    "PostProcess",
    "Prediction",
    "ResizeRule",
    "Sample",
    "Task",
    "TensorInfo",
    "UInt8Array",
]

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
COMPUTE_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""ONNX ops that sum products: where a model's time goes, and what INT8 makes faster."""


class Task(str, Enum):
    """What the model does."""

    DETECT = "detect"
    CLASSIFY = "classify"


class ColorOrder(str, Enum):
    """Channel order that the model expects."""

    RGB = "rgb"
    BGR = "bgr"


class Layout(str, Enum):
    """Axis order of the input tensor."""

    NCHW = "nchw"
    NHWC = "nhwc"


class ResizeRule(str, Enum):
    """How an image of any size becomes the model's size."""

    LETTERBOX_CENTER = "letterbox-center"
    """Keep the aspect ratio, pad on both sides (Ultralytics)."""
    LETTERBOX_TOPLEFT = "letterbox-topleft"
    """Keep the aspect ratio, image at the top left, pad right and below (YOLOX)."""
    STRETCH = "stretch"
    """Resize both sides, aspect ratio not kept."""
    CENTER_CROP = "center-crop"
    """Resize the short side, then cut out the centre (ImageNet classifiers)."""


class IntegerType(str, Enum):
    """Integer types that runtimes compute with; the value is numpy's name."""

    UINT8 = "uint8"
    INT8 = "int8"
    INT16 = "int16"

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value."""
        info = np.iinfo(self.value)
        return int(info.min), int(info.max)


class ModelPrecision(str, Enum):
    """What an artifact computes in, with the names that TFLite's users know."""

    INT8 = "int8"
    """Weights and activations in INT8, calibrated; layers that the plan keeps stay float."""
    INT16X8 = "int16x8"
    """INT8 weights with INT16 activations, calibrated."""
    DYNAMIC = "dynamic"
    """INT8 weights, activations rounded at every inference ("dynamic range"); no calibration."""
    INT8_WEIGHTS = "int8-weights"
    """INT8 weights, computed in float; no calibration."""
    FLOAT16 = "float16"
    """Weights stored in float16, computed in float; no calibration."""
    FLOAT32 = "float32"
    """The float model in the runtime's form; no calibration."""

    @property
    def calibrated(self) -> bool:
        """Whether it takes calibration images."""
        return self in (ModelPrecision.INT8, ModelPrecision.INT16X8)


class HeadFamily(str, Enum):
    """How raw outputs become detections or classes; shapes are for one image, nc classes."""

    YOLOX = "yolox"
    """(1, n, 5 + nc): cx, cy, w, h on the undecoded grid, objectness, classes after sigmoid."""
    YOLOV5 = "yolov5"
    """(1, n, 5 + nc): cx, cy, w, h in input pixels, objectness, classes after sigmoid."""
    YOLOV8 = "yolov8"
    """(1, 4 + nc, n): cx, cy, w, h in input pixels, classes after sigmoid (v8, v9, 11, 12)."""
    END_TO_END = "end2end"
    """(1, k, 6): x1, y1, x2, y2 in input pixels, score, class id; NMS-free (v10, 26)."""
    CLASSIFIER = "classifier"
    """(1, nc): logits or probabilities."""

    @property
    def task(self) -> Task:
        """The task that this head serves."""
        return Task.CLASSIFY if self is HeadFamily.CLASSIFIER else Task.DETECT


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and dtype of a model's input or output; unknown dimensions are None or names."""

    name: str
    shape: tuple[int | str | None, ...]
    dtype: str
    """numpy's name: ``float32``, ``uint8``, ..."""


@dataclass(frozen=True)
class InputSpec:
    """What the model wants to see: ``x = (pixel - mean) / std`` with pixels 0..255.

    ``mean`` and ``std`` are in 0..255 units, in the model's own channel order
    (range 0..1 is mean 0, std 255; range 0..255 is mean 0, std 1).
    """

    name: str
    height_px: int
    width_px: int
    layout: Layout = Layout.NCHW
    color: ColorOrder = ColorOrder.RGB
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    resize: ResizeRule = ResizeRule.LETTERBOX_CENTER
    pad_value: int = 114
    short_side_px: int | None = None
    """Centre crop only: the short side is resized to this before the crop (None: the model's size)."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the input tensor with batch 1."""
        h, w = self.height_px, self.width_px
        return (1, 3, h, w) if self.layout is Layout.NCHW else (1, h, w, 3)


@dataclass(frozen=True)
class HeadSpec:
    """How to read the model's outputs."""

    family: HeadFamily
    output: str
    """Name of the output tensor that holds the predictions."""
    class_names: tuple[str, ...]
    strides: tuple[int, ...] = (8, 16, 32)
    """YOLOX only: grid strides, finest first."""
    normalized_boxes: bool = False
    """Boxes are in 0..1 of the input instead of pixels (many TFLite exports)."""

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def task(self) -> Task:
        """The task that this head serves."""
        return self.family.task


@dataclass(frozen=True)
class PostProcess:
    """Fixed post-processing of detections; recorded with every metric, the same for float and INT8."""

    confidence: float = 0.001
    iou: float = 0.65
    max_detections: int = 300
    multi_label: bool = True
    """A box may count for every class over the confidence, not for its best class only."""
    max_candidates: int = 30_000
    """Only the best so many enter NMS: a ruined model that fires everywhere must not take seconds each."""


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best score first."""

    boxes_xyxy: Float32Array
    """(n, 4) x1, y1, x2, y2 in pixels of the original image."""
    scores: Float32Array
    """(n,) 0..1."""
    class_ids: npt.NDArray[np.int64]
    """(n,) index into the class names."""


# Union, since boards may have Python 3.9.
Prediction = Union[Detections, Float32Array]  # noqa: UP007
"""What a model says of one image: detections, or a classifier's (nc,) scores as it gives them."""


@dataclass(frozen=True)
class DetectionTruth:
    """Labelled boxes of one image."""

    boxes_xyxy: Float32Array
    """(n, 4) x1, y1, x2, y2 in pixels of the original image."""
    class_ids: npt.NDArray[np.int64]
    """(n,) index into the class names."""
    crowd: npt.NDArray[np.bool_]
    """(n,) COCO's iscrowd: matched by any number of detections, never a miss."""
    area_px2: npt.NDArray[np.float64]
    """(n,) area in square pixels: COCO's segment area, else the box's."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set and what is known about it."""

    key: str
    """Path relative to the data set's root, with forward slashes: stable between machines."""
    path: Path
    truth: DetectionTruth | int | None = None
    """Boxes, a class index, or None where the set has no labels."""


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order with the names of their classes."""

    samples: tuple[Sample, ...]
    class_names: tuple[str, ...]
    task: Task | None
    """None: images without labels, good for calibration only."""
    origin: str
    """What the user named: the path of data.yaml, JSON, CSV or folder."""
    split: str = "val"
    warnings: tuple[str, ...] = field(default=())

    @property
    def labelled(self) -> bool:
        """Whether a metric can be computed on it."""
        return self.task is not None
