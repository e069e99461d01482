"""From an image of any size to the model's input tensor, and boxes the way back.

The one place where pixels are resized and normalised: calibration, evaluation, the device and
``predict`` all come through here. Needs numpy, and OpenCV or Pillow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgeq.data.pixels import resize_rgb, split_planes
from edgeq.errors import DataError, SpecError
from edgeq.types import ColorOrder, Float32Array, InputSpec, Layout, ResizeRule, UInt8Array

__all__ = ["Geometry", "preprocess"]


@dataclass(frozen=True)
class Geometry:
    """How an image lies in the input tensor: ``x_in = x_original * scale_x + pad_left_px``."""

    scale_x: float
    scale_y: float
    pad_left_px: int
    """Negative where a crop cuts off the left."""
    pad_top_px: int
    """Negative where a crop cuts off the top."""
    original_width_px: int
    original_height_px: int

    def to_original(self, boxes_xyxy: Float32Array) -> Float32Array:
        """Boxes in pixels of the original image, clipped to it.

        Args:
            boxes_xyxy: float32 (n, 4) x1, y1, x2, y2 in pixels of the input tensor.
        """
        pad = np.array([self.pad_left_px, self.pad_top_px] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.original_width_px, self.original_height_px] * 2, np.float32)
        boxes: Float32Array = np.asarray(boxes_xyxy, np.float32) - pad
        boxes /= scale
        return np.clip(boxes, 0, limit, out=boxes)


@dataclass(frozen=True)
class _Placement:
    """Size that the whole image is scaled to, and where its top left corner lies in the tensor."""

    width_px: int
    height_px: int
    scale_x: float
    scale_y: float
    left_px: int
    top_px: int


def preprocess(image: UInt8Array, spec: InputSpec, *, native: bool = False) -> tuple[Float32Array, Geometry]:
    """Input tensor float32 ``spec.shape``, normalised, and the geometry to map boxes back.

    * centred letterbox: as Ultralytics' ``LetterBox`` (sizes rounded, odd pixel below and right);
    * top-left letterbox: as YOLOX's ``preproc`` (sizes cut to integers);
    * stretch: bilinear;
    * centre crop: shrinks by area average, as ImageNet pipelines with antialiasing do.

    For both letterboxes the geometry holds the nominal ratio ``r = min(H / h, W / w)``, not that of
    the rounded sizes, since that is what the two references divide boxes by.

    Args:
        image: uint8 (h, w, 3), RGB.
        spec: what the model wants to see.
        native: resize as this machine's OpenCV does, on ARM with a grey level of difference here and there;
            else the same pixels come out on every machine.

    Raises:
        DataError: the image is not uint8 (h, w, 3) or has no pixels.
        SpecError: the short side of a centre crop is smaller than the crop.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise DataError(f"expected an image uint8 (h, w, 3), got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    place = _PLACE[spec.resize](width, height, spec)
    pixels = _resize(image, place, spec, native)
    tensor = _normalize(pixels, max(place.left_px, 0), max(place.top_px, 0), spec)
    geometry = Geometry(place.scale_x, place.scale_y, place.left_px, place.top_px, width, height)
    return tensor, geometry


def _place_center(width: int, height: int, spec: InputSpec) -> _Placement:
    ratio = min(spec.height_px / height, spec.width_px / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    left = round((spec.width_px - new_width) / 2 - 0.1)
    top = round((spec.height_px - new_height) / 2 - 0.1)
    return _Placement(new_width, new_height, ratio, ratio, left, top)


def _place_topleft(width: int, height: int, spec: InputSpec) -> _Placement:
    ratio = min(spec.height_px / height, spec.width_px / width)
    return _Placement(max(int(width * ratio), 1), max(int(height * ratio), 1), ratio, ratio, 0, 0)


def _place_stretch(width: int, height: int, spec: InputSpec) -> _Placement:
    return _Placement(spec.width_px, spec.height_px, spec.width_px / width, spec.height_px / height, 0, 0)


def _place_crop(width: int, height: int, spec: InputSpec) -> _Placement:
    if spec.short_side_px is None:
        ratio = max(spec.width_px / width, spec.height_px / height)
    else:
        ratio = spec.short_side_px / min(width, height)
    # The tolerance keeps an exact side exact: 375 * (256 / 375) is 255.99999999999997.
    new_width, new_height = math.floor(width * ratio + 1e-6), math.floor(height * ratio + 1e-6)
    left, top = round((new_width - spec.width_px) / 2), round((new_height - spec.height_px) / 2)
    if new_width < spec.width_px or new_height < spec.height_px:
        raise SpecError(
            f"a short side of {spec.short_side_px} px cannot hold a centre crop of "
            f"{spec.width_px} x {spec.height_px}",
            fix="set short_side_px to the model's size or more",
        )
    return _Placement(new_width, new_height, new_width / width, new_height / height, -left, -top)


_PLACE = {
    ResizeRule.LETTERBOX_CENTER: _place_center,
    ResizeRule.LETTERBOX_TOPLEFT: _place_topleft,
    ResizeRule.STRETCH: _place_stretch,
    ResizeRule.CENTER_CROP: _place_crop,
}


def _resize(image: UInt8Array, place: _Placement, spec: InputSpec, native: bool) -> UInt8Array:
    """The part of the scaled image that lies inside the tensor, uint8 (h', w', 3), RGB."""
    height, width = image.shape[:2]
    pixels = image
    if (width, height) != (place.width_px, place.height_px):
        shrinks = place.width_px < width
        area = spec.resize is ResizeRule.CENTER_CROP and shrinks
        pixels = resize_rgb(image, place.width_px, place.height_px, area=area, native=native)
    left, top = max(-place.left_px, 0), max(-place.top_px, 0)
    return pixels[top : top + spec.height_px, left : left + spec.width_px]


class _Levels(NamedTuple):
    """From pixels to the tensor's numbers, (3,) each, in the tensor's channel order."""

    scale: Float32Array
    shift: Float32Array
    padding: Float32Array
    """What stands around the image."""


def _normalize(pixels: UInt8Array, left: int, top: int, spec: InputSpec) -> Float32Array:
    """Tensor of ``spec.shape`` with the pixels at (left, top) and padding around them."""
    scale = np.float32(1) / np.asarray(spec.std, np.float32)
    shift = -np.asarray(spec.mean, np.float32) * scale
    fill = _to_nchw if spec.layout is Layout.NCHW else _to_nhwc
    return fill(pixels, left, top, spec, _Levels(scale, shift, np.float32(spec.pad_value) * scale + shift))


def _to_nchw(pixels: UInt8Array, left: int, top: int, spec: InputSpec, levels: _Levels) -> Float32Array:
    tensor: Float32Array = np.empty(spec.shape, np.float32)
    # Contiguous planes: scaling them is several times faster than scaling every third byte.
    planes = split_planes(pixels)
    if spec.color is ColorOrder.BGR:
        planes = planes[::-1]
    height, width = pixels.shape[:2]
    for channel, plane in enumerate(planes):
        out = tensor[0, channel]
        _fill_border(out, left, top, width, height, levels.padding[channel])
        inside = out[top : top + height, left : left + width]
        _scale_shift(plane, levels.scale[channel], levels.shift[channel], inside)
    return tensor


def _to_nhwc(pixels: UInt8Array, left: int, top: int, spec: InputSpec, levels: _Levels) -> Float32Array:
    tensor: Float32Array = np.empty(spec.shape, np.float32)
    if spec.color is ColorOrder.BGR:
        pixels = np.ascontiguousarray(pixels[..., ::-1])
    height, width = pixels.shape[:2]
    _fill_border(tensor[0], left, top, width, height, levels.padding)
    # Rows of width * 3 numbers: numpy's inner loop would otherwise be three long.
    rows = tensor.reshape(spec.height_px, spec.width_px * 3)
    inside = rows[top : top + height, left * 3 : (left + width) * 3]
    flat = np.ascontiguousarray(pixels).reshape(height, width * 3)
    _scale_shift(flat, np.tile(levels.scale, width), np.tile(levels.shift, width), inside)
    return tensor


def _scale_shift(
    pixels: UInt8Array,
    scale: Float32Array | np.float32,
    shift: Float32Array | np.float32,
    out: Float32Array,
) -> None:
    # The dtype is named because numpy 1 would compute uint8 times a small float32 in half precision.
    np.multiply(pixels, scale, out=out, dtype=np.float32)
    if np.any(shift):
        out += shift


def _fill_border(
    out: Float32Array, left: int, top: int, width: int, height: int, value: Float32Array | np.float32
) -> None:
    """Sets what lies outside of the image, (H, W) or (H, W, 3), and touches nothing else."""
    out[:top] = value
    out[top + height :] = value
    out[top : top + height, :left] = value
    out[top : top + height, left + width :] = value
