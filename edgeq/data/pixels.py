"""Decoding and resizing of pixels: by OpenCV, or by Pillow and numpy where it is missing or rounds otherwise.

So every machine sees the same pixels, some of them more slowly (`edgeq.data.resize`).
"""

from __future__ import annotations

import io
import platform
from typing import Any

import numpy as np

from edgeq.data.resize import resize_by_numpy
from edgeq.types import UInt8Array

try:
    import cv2
except ImportError:  # a board with Pillow
    cv2 = None  # type: ignore[assignment]

__all__ = ["HAS_OPENCV", "decode_rgb", "resize_rgb", "split_planes"]

HAS_OPENCV = cv2 is not None
_USUAL = HAS_OPENCV and platform.machine().lower() in ("x86_64", "amd64")
"""Whether OpenCV's own code resizes here, whose pixels are what all machines shall see."""


def decode_rgb(data: bytes) -> UInt8Array | None:
    """uint8 (h, w, 3), RGB, upright by its Exif orientation; None: it cannot be decoded."""
    if cv2 is None:
        return _decode_by_pillow(data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None or image.size == 0:
        return None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)  # type: ignore[return-value]


def resize_rgb(
    image: UInt8Array, width_px: int, height_px: int, *, area: bool, native: bool = False
) -> UInt8Array:
    """uint8 (h, w, 3) at another size: bilinear, or by area averages; the same pixels on every machine.

    Args:
        image: uint8 (h, w, 3).
        width_px: wanted.
        height_px: wanted.
        area: by area averages.
        native: by this machine's OpenCV, whatever it does: what a user's own program would see here, as fast.
    """
    if cv2 is None or not (native or _USUAL):
        return resize_by_numpy(image, width_px, height_px, area=area)
    rule = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    return cv2.resize(image, (width_px, height_px), interpolation=rule)  # type: ignore[return-value]


def split_planes(image: UInt8Array) -> tuple[UInt8Array, ...]:
    """The three channels, each contiguous (h, w)."""
    if cv2 is None:
        return tuple(np.ascontiguousarray(image[..., channel]) for channel in range(3))
    return tuple(cv2.split(image))  # type: ignore[arg-type]


def _decode_by_pillow(data: bytes) -> UInt8Array | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as opened:
            upright: Any = ImageOps.exif_transpose(opened)
            return np.ascontiguousarray(upright.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
