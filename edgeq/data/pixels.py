"""Decoding and resizing of pixels: by OpenCV, or on a board without it by Pillow and numpy.

The numpy rules are OpenCV's own: bilinear in fixed point with 11 bits per weight, as its ``resize`` computes
8-bit images (``HResizeLinear``, ``VResizeLinear`` and ``FixedPtCast`` in modules/imgproc/src/resize.cpp), and
area averages in float. So a board with Pillow sees what a board with OpenCV sees, only more slowly.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.types import UInt8Array

try:
    import cv2
except ImportError:  # a board with Pillow
    cv2 = None  # type: ignore[assignment]

__all__ = ["HAS_OPENCV", "decode_rgb", "resize_by_numpy", "resize_rgb", "split_planes"]

HAS_OPENCV = cv2 is not None
_BITS = 11


def decode_rgb(data: bytes) -> UInt8Array | None:
    """uint8 (h, w, 3), RGB, upright by its Exif orientation; None: it cannot be decoded."""
    if cv2 is None:
        return _decode_by_pillow(data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None or image.size == 0:
        return None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)  # type: ignore[return-value]


def resize_rgb(
    image: UInt8Array, width_px: int, height_px: int, *, area: bool, reference: bool = False
) -> UInt8Array:
    """uint8 (h, w, 3) at another size: bilinear, or by area averages.

    Args:
        image: uint8 (h, w, 3).
        width_px: wanted.
        height_px: wanted.
        area: by area averages.
        reference: by the numpy rule also where OpenCV is there. OpenCV's builds for ARM hand ``resize`` to
            other libraries (KleidiCV, Carotene), which round otherwise than its own code does.
    """
    if cv2 is None or reference:
        return resize_by_numpy(image, width_px, height_px, area=area)
    rule = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    return cv2.resize(image, (width_px, height_px), interpolation=rule)  # type: ignore[return-value]


def split_planes(image: UInt8Array) -> tuple[UInt8Array, ...]:
    """The three channels, each contiguous (h, w)."""
    if cv2 is None:
        return tuple(np.ascontiguousarray(image[..., channel]) for channel in range(3))
    return tuple(cv2.split(image))  # type: ignore[arg-type]


def resize_by_numpy(image: UInt8Array, width_px: int, height_px: int, *, area: bool) -> UInt8Array:
    """The same in numpy."""
    height, width = image.shape[:2]
    # OpenCV takes a bilinear halving of both sides for the average that it is.
    if width == 2 * width_px and height == 2 * height_px:
        return _halved(image)
    if area:
        return _by_area(image, width_px, height_px)
    left, right, x_weights = _linear_weights(width, width_px, keep_share=False)
    top, below, y_weights = _linear_weights(height, height_px, keep_share=True)
    wide = image.astype(np.int32)
    rows = wide[:, left] * x_weights[0][None, :, None] + wide[:, right] * x_weights[1][None, :, None]
    rows >>= 4
    upper = (rows[top] * y_weights[0][:, None, None]) >> 16
    lower = (rows[below] * y_weights[1][:, None, None]) >> 16
    out: UInt8Array = np.clip((upper + lower + 2) >> 2, 0, 255).astype(np.uint8)
    return out


def _decode_by_pillow(data: bytes) -> UInt8Array | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as opened:
            upright: Any = ImageOps.exif_transpose(opened)
            return np.ascontiguousarray(upright.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _linear_weights(
    size: int, wanted: int, *, keep_share: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """For each output position its two sources and their weights (2, wanted), of 2 ** 11 together.

    Beyond the edge both sources are the edge; ``keep_share`` leaves the weights as they are there, as OpenCV
    does for rows, which rounds differently than one weight of 1, as it does for columns.
    """
    at = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    share = (at - first).astype(np.float32)
    if not keep_share:
        share[(first < 0) | (first >= size - 1)] = 0
    scale = np.float32(1 << _BITS)
    weights = np.stack([np.rint((1 - share) * scale), np.rint(share * scale)]).astype(np.int32)
    second = np.clip(first + 1, 0, size - 1)
    return np.clip(first, 0, size - 1), second, weights


def _halved(image: UInt8Array) -> UInt8Array:
    """The average of two by two pixels, halves rounded up."""
    wide = image.astype(np.uint16)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    out: UInt8Array = ((total + 2) >> 2).astype(np.uint8)
    return out


def _by_area(image: UInt8Array, width_px: int, height_px: int) -> UInt8Array:
    """Each output pixel is the average of the area that it covers."""
    height, width = image.shape[:2]
    rows = np.tensordot(_area_weights(height, height_px), image.astype(np.float32), axes=(1, 0))
    average = np.tensordot(_area_weights(width, width_px), rows, axes=(1, 1)).transpose(1, 0, 2)
    out: UInt8Array = np.clip(np.rint(average), 0, 255).astype(np.uint8)
    return out


def _area_weights(size: int, wanted: int) -> npt.NDArray[np.float32]:
    """(wanted, size) overlap of output and input pixels, each row of sum 1."""
    step = size / wanted
    starts = np.arange(wanted)[:, None] * step
    overlap = np.minimum(starts + step, np.arange(1, size + 1)) - np.maximum(starts, np.arange(size))
    weights: npt.NDArray[np.float32] = (np.clip(overlap, 0, None) / step).astype(np.float32)
    return weights
