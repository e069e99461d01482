"""What a user may say about a model's input and head, and the customary answers by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeq.types import ColorOrder, HeadFamily, Layout, ResizeRule, Task

__all__ = ["COCO_CLASS_NAMES", "PRESETS", "Preset", "SpecOverrides", "customary_preset"]


@dataclass(frozen=True)
class SpecOverrides:
    """What the user says about a model; None leaves it to recognition."""

    family: HeadFamily | None = None
    output: str | None = None
    """Name of the output that holds the predictions."""
    class_names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    """Height and width in pixels."""
    layout: Layout | None = None
    color: ColorOrder | None = None
    mean: tuple[float, float, float] | None = None
    """In 0..255 units, in the model's channel order."""
    std: tuple[float, float, float] | None = None
    """In 0..255 units, in the model's channel order."""
    resize: ResizeRule | None = None
    pad_value: int | None = None
    short_side_px: int | None = None
    strides: tuple[int, ...] | None = None
    normalized_boxes: bool | None = None
    preset: str | None = None
    """A name of ``PRESETS``; the other fields go before it."""


@dataclass(frozen=True)
class Preset:
    """A customary way to bring an image to a model's input."""

    summary: str
    task: Task
    color: ColorOrder
    mean: tuple[float, float, float]
    """In 0..255 units."""
    std: tuple[float, float, float]
    """In 0..255 units."""
    resize: ResizeRule
    short_side_ratio: float | None = None
    """Centre crop: the short side in multiples of the model's size."""


def _classifier(summary: str, *, mean: tuple[float, ...], std: tuple[float, ...], ratio: float) -> Preset:
    """A centre-crop, RGB preset; one value stands for all three channels."""
    means, stds = (mean * 3)[:3], (std * 3)[:3]
    return Preset(
        summary=summary,
        task=Task.CLASSIFY,
        color=ColorOrder.RGB,
        mean=(means[0], means[1], means[2]),
        std=(stds[0], stds[1], stds[2]),
        resize=ResizeRule.CENTER_CROP,
        short_side_ratio=ratio,
    )


PRESETS: Mapping[str, Preset] = {
    "yolox": Preset(
        summary="BGR, 0..255, letterbox top-left",
        task=Task.DETECT,
        color=ColorOrder.BGR,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize=ResizeRule.LETTERBOX_TOPLEFT,
    ),
    "ultralytics": Preset(
        summary="RGB, 0..1, letterbox centre",
        task=Task.DETECT,
        color=ColorOrder.RGB,
        mean=(0.0, 0.0, 0.0),
        std=(255.0, 255.0, 255.0),
        resize=ResizeRule.LETTERBOX_CENTER,
    ),
    "imagenet": _classifier(
        "RGB, ImageNet mean and deviation, short side 256 for a crop of 224 (torchvision, timm)",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        ratio=256 / 224,
    ),
    "tf-lite": _classifier(
        "RGB, (x - 127) / 128, short side 256 for a crop of 224 (EfficientNet-Lite)",
        mean=(127.0,),
        std=(128.0,),
        ratio=256 / 224,
    ),
    "tf": _classifier(
        "RGB, -1..1, short side 256 for a crop of 224 (Keras MobileNet, Inception)",
        mean=(127.5,),
        std=(127.5,),
        ratio=256 / 224,
    ),
    "unit": _classifier(
        "RGB, 0..1, short side to the crop (Ultralytics -cls)", mean=(0.0,), std=(255.0,), ratio=1.0
    ),
}


def customary_preset(family: HeadFamily) -> str | None:
    """Name of the preset that a family's models are trained with; None: there is no custom."""
    if family is HeadFamily.CLASSIFIER:
        return None
    return "yolox" if family is HeadFamily.YOLOX else "ultralytics"


# fmt: off
COCO_CLASS_NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
    "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
