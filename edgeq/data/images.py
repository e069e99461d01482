"""Reading images that nobody vouches for, and knowing them again by their content.

Needs numpy, and OpenCV or Pillow to decode, so it runs on the device; what looks for doubles needs OpenCV.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np

from edgeq.data.headers import ImageHeader, read_header
from edgeq.data.pixels import decode_rgb
from edgeq.errors import DataError
from edgeq.types import UInt8Array

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "decode_gray",
    "decode_image",
    "file_digest",
    "image_size",
    "perceptual_hash",
    "pixel_digest",
    "read_bytes",
    "read_image",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""File names that count as images, lower case."""

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded."""

_MAX_BYTES = 1 << 30
_REPLACE = "replace or remove the file"
_HASH_COLUMNS, _HASH_ROWS = 9, 8
# Below this many pixels on the short side a reduced decode would blur what the hash looks at.
_REDUCED_SHORT_SIDE_PX = 64


def read_image(path: str | os.PathLike[str]) -> UInt8Array:
    """Image as uint8 (h, w, 3), RGB, turned upright by its Exif orientation.

    Grayscale becomes three equal channels, alpha is dropped, 16 bits are reduced to the upper 8.

    Raises:
        DataError: no such file, not an image, truncated or damaged, empty, over ``MAX_PIXELS``.
    """
    return decode_image(read_bytes(path), name=os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Bytes of a regular file of sensible size.

    Raises:
        DataError: the file is missing, no regular file, unreadable, empty or over 1 GiB.
    """
    file = Path(path)
    try:
        # A FIFO or a device would block or never end.
        if not file.is_file():
            raise DataError(f"no such image file: {file}", fix="check the path")
        size = file.stat().st_size
        if size == 0:
            raise DataError(f"{file} is empty (0 bytes)", fix=_REPLACE)
        if size > _MAX_BYTES:
            raise DataError(f"{file} has {size / 1e6:.0f} MB, which no sensible image needs", fix=_REPLACE)
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


def decode_image(data: bytes, *, name: str) -> UInt8Array:
    """Image as uint8 (h, w, 3), RGB, from the bytes of a file; see ``read_image``.

    Raises:
        DataError: as ``read_image``; ``name`` stands for the file in the message.
    """
    _checked_header(data, name=name)
    try:
        image = decode_rgb(data)
    except Exception as error:  # OpenCV's own; without OpenCV there is no such class to name
        raise DataError(f"{name} cannot be decoded: {error}", fix=_REPLACE) from error
    if image is None:
        raise DataError(f"{name} cannot be decoded: truncated or damaged", fix=_REPLACE)
    return image


def decode_gray(data: bytes, *, name: str) -> UInt8Array:
    """Image as uint8 (h, w), grey, decoded at 1/4, 1/2 or all of its size: for ``perceptual_hash``.

    A JPEG decodes about twice as fast so; the other formats are decoded whole and then shrunk. (At
    1/8 OpenCV's rounding up of odd sizes shifts the picture too much to compare it.)

    Raises:
        DataError: as ``read_image``.
    """
    header = _checked_header(data, name=name)
    short_side = min(header.width_px, header.height_px)
    import cv2

    flags = cv2.IMREAD_GRAYSCALE
    for factor, reduced in ((4, cv2.IMREAD_REDUCED_GRAYSCALE_4), (2, cv2.IMREAD_REDUCED_GRAYSCALE_2)):
        if short_side >= factor * _REDUCED_SHORT_SIDE_PX:
            flags = reduced
            break
    return _decode(data, flags, name=name)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels as ``read_image`` would return them; decodes only if it must.

    Raises:
        DataError: as ``read_image``, except that damage behind the header goes unseen.
    """
    try:
        with Path(path).open("rb") as stream:
            header = read_header(stream)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if header is None or header.turned is None:
        height, width = read_image(path).shape[:2]
        return width, height
    _check_size(header, name=os.fspath(path))
    if header.turned:
        return header.height_px, header.width_px
    return header.width_px, header.height_px


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file's bytes, in hex."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def pixel_digest(image: UInt8Array) -> str:
    """SHA-256 of shape and pixels, in hex: equal for lossless copies in any format.

    Args:
        image: uint8 (h, w, 3) or (h, w).
    """
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def perceptual_hash(image: UInt8Array) -> int:
    """64-bit difference hash: survives re-encoding and resizing, not cropping or mirroring.

    Grey image at 9 x 8, one bit per horizontal neighbour pair: brighter to the right or not
    (dHash, N. Krawetz, 2013).

    Args:
        image: uint8 (h, w, 3) RGB or (h, w) grey.
    """
    import cv2

    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    small = cv2.resize(gray, (_HASH_COLUMNS, _HASH_ROWS), interpolation=cv2.INTER_AREA)
    bits = small[:, 1:] > small[:, :-1]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _checked_header(data: bytes, *, name: str) -> ImageHeader:
    header = read_header(io.BytesIO(data))
    if header is None:
        raise DataError(
            f"{name} is not an image, or its header is damaged (JPEG, PNG, BMP, WebP and TIFF are read)",
            fix=_REPLACE,
        )
    _check_size(header, name=name)
    # Older versions of OpenCV fill what is missing with grey and say nothing.
    if header.format == "jpeg" and data.rfind(b"\xff\xd9") < header.scan_offset:
        raise DataError(f"{name} is truncated: the JPEG has no end marker", fix=_REPLACE)
    return header


def _check_size(header: ImageHeader, *, name: str) -> None:
    width, height = header.width_px, header.height_px
    if width == 0 or height == 0:
        raise DataError(f"{name} has no pixels ({width} x {height})", fix=_REPLACE)
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name} has {width} x {height} = {width * height / 1e6:.0f} megapixels; "
            f"the limit is {MAX_PIXELS / 1e6:.0f}",
            fix="scale it down first; a model sees it at a fraction of that size anyway",
        )


def _decode(data: bytes, flags: int, *, name: str) -> UInt8Array:
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{name} cannot be decoded: {error.err}", fix=_REPLACE) from error
    if image is None or image.size == 0:
        raise DataError(f"{name} cannot be decoded: truncated or damaged", fix=_REPLACE)
    return image  # type: ignore[return-value]
