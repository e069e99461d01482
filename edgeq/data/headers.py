"""Size and orientation of an image from its first bytes, without decoding a pixel.

Pure Python over a seekable stream; reads a few hundred bytes of most files. The input is untrusted:
every length is bounded, and what does not parse is ``None``.

Orientation follows what OpenCV does on decoding. Where its versions differ (Exif in PNG, WebP or
TIFF, or behind another APP1 segment of a JPEG) ``turned`` is None and the caller has to decode.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["ImageHeader", "read_header"]

_MAX_SEGMENTS = 4096
_ORIENTATION_TAG = 0x0112
_TURNED = range(5, 9)
"""Exif orientations that swap width and height."""


@dataclass(frozen=True)
class ImageHeader:
    """What the header says."""

    format: str
    """``jpeg``, ``png``, ``bmp``, ``webp`` or ``tiff``."""
    width_px: int
    """Stored width, before any Exif rotation."""
    height_px: int
    """Stored height, before any Exif rotation."""
    turned: bool | None = False
    """Whether decoding swaps width and height; None: only decoding tells."""
    scan_offset: int = 0
    """JPEG only: where the compressed pixels begin."""


def read_header(stream: BinaryIO) -> ImageHeader | None:
    """Header of a JPEG, PNG, BMP, WebP or TIFF; None for anything else or a damaged one."""
    start = stream.read(30)
    try:
        if start[:3] == b"\xff\xd8\xff":
            return _jpeg(stream)
        if start[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(stream, start)
        if start[:2] == b"BM":
            return _bmp(start)
        if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            return _webp(start)
        if start[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(stream, start)
    except (struct.error, ValueError, OverflowError):
        return None
    return None


def _jpeg(stream: BinaryIO) -> ImageHeader | None:
    stream.seek(2)
    size: tuple[int, int] | None = None
    turned: bool | None = False
    app1_seen = False
    for _ in range(_MAX_SEGMENTS):
        marker = _next_marker(stream)
        if marker in (0xD9, 0xDA):
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        (length,) = struct.unpack(">H", stream.read(2))
        if marker == 0xE1:
            payload = stream.read(length - 2)
            turned = _app1_turned(payload, first=not app1_seen, before=turned)
            app1_seen = True
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">xHH", stream.read(5))
            size = (width, height)
            stream.seek(length - 7, 1)
        else:
            stream.seek(length - 2, 1)
    if size is None:
        return None
    return ImageHeader("jpeg", size[0], size[1], turned, scan_offset=stream.tell())


def _next_marker(stream: BinaryIO) -> int:
    """Code of the next marker; any number of 0xFF fill bytes may stand before it."""
    if stream.read(1) != b"\xff":
        raise ValueError("no marker")
    code = 0xFF
    while code == 0xFF:
        (code,) = struct.unpack("B", stream.read(1))
    return int(code)


def _app1_turned(payload: bytes, *, first: bool, before: bool | None) -> bool | None:
    if not payload.startswith(b"Exif\0\0"):
        return before
    # Some versions of OpenCV look at the first APP1 only, others at all of them.
    return _exif_turned(payload[6:]) if first else None


def _exif_turned(tiff: bytes) -> bool | None:
    """Whether the orientation in this TIFF block swaps the sides; None where it does not parse."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        magic, offset = struct.unpack_from(f"{order}HI", tiff, 2)
        (count,) = struct.unpack_from(f"{order}H", tiff, offset)
        if magic != 42:
            return None
        for index in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, offset + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                return value in _TURNED
    except struct.error:
        return None
    return False


def _png(stream: BinaryIO, start: bytes) -> ImageHeader | None:
    if start[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", start, 16)
    stream.seek(33)
    # The chunk may stand behind the pixels, so the whole chain is walked; IDAT bytes are skipped.
    while len(chunk := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", chunk)
        if kind == b"eXIf":
            return ImageHeader("png", width, height, None)
        if kind == b"IEND":
            break
        stream.seek(length + 4, 1)
    return ImageHeader("png", width, height)


def _bmp(start: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", start, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", start, 18)
    return ImageHeader("bmp", abs(width), abs(height))


def _webp(start: bytes) -> ImageHeader | None:
    kind = start[12:16]
    if kind == b"VP8X":
        animated_or_exif = bool(start[20] & 0x0A)
        width = 1 + int.from_bytes(start[24:27], "little")
        height = 1 + int.from_bytes(start[27:30], "little")
        return ImageHeader("webp", width, height, None if animated_or_exif else False)
    if kind == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", start, 26)
        return ImageHeader("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and start[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", start, 21)
        return ImageHeader("webp", 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF))
    return None


def _tiff(stream: BinaryIO, start: bytes) -> ImageHeader | None:
    order = "<" if start[:2] == b"II" else ">"
    stream.seek(struct.unpack_from(f"{order}I", start, 4)[0])
    (count,) = struct.unpack(f"{order}H", stream.read(2))
    sides: dict[int, int] = {}
    for _ in range(min(count, _MAX_SEGMENTS)):
        entry = stream.read(12)
        tag, kind = struct.unpack_from(f"{order}HH", entry)
        if tag in (256, 257):
            sides[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", entry, 8)[0]
    return ImageHeader("tiff", sides[256], sides[257], None) if len(sides) == 2 else None
