from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeq.data.images import (
    decode_gray,
    file_digest,
    image_size,
    perceptual_hash,
    pixel_digest,
    read_image,
)
from edgeq.errors import DataError

from .conftest import app1, exif_block, make_picture, with_exif, write_image


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_reads_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 6, 3), np.uint8)
    red[..., 0] = 200
    image = read_image(write_image(tmp_path / "red.png", red))
    assert image.shape == (8, 6, 3)
    assert image[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("stored", "first_pixel"),
    [
        (np.full((4, 5), 77, np.uint8), [77, 77, 77]),
        (np.full((4, 5, 4), (10, 20, 30, 0), np.uint8), [30, 20, 10]),
        (np.full((4, 5, 3), 0x8000, np.uint16), [128, 128, 128]),
    ],
    ids=["gray", "alpha", "16-bit"],
)
def test_other_pixel_formats_become_rgb8(tmp_path: Path, stored: np.ndarray, first_pixel: list[int]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert image.shape == (4, 5, 3)
    assert image[0, 0].tolist() == first_pixel


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_size_from_header_equals_decoded_size(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a{suffix}", make_picture(1, width=61, height=47))
    assert image_size(path) == (61, 47)
    assert read_image(path).shape == (47, 61, 3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_of_jpeg(tmp_path: Path, orientation: int, order: str) -> None:
    plain = write_image(tmp_path / "a.jpg", make_picture(1, width=64, height=48)).read_bytes()
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_exif(plain, orientation, order=order))
    expected = (48, 64) if orientation in range(5, 9) else (64, 48)
    assert image_size(path) == expected
    assert read_image(path).shape[1::-1] == expected


def test_size_agrees_with_opencv_where_its_versions_differ(tmp_path: Path) -> None:
    picture = make_picture(1, width=64, height=48)
    jpeg = write_image(tmp_path / "a.jpg", picture).read_bytes()
    png = write_image(tmp_path / "a.png", picture).read_bytes()
    exif = png_chunk(b"eXIf", exif_block(6))
    end = png.rindex(b"IEND") - 4
    files = {
        "xmp-first.jpg": with_exif(jpeg, 6, before=app1(b"http://ns.adobe.com/xap/1.0/\0<x/>")),
        "broken-exif.jpg": jpeg[:2] + app1(b"Exif\0\0II*\0\xff\xff\xff\x7f") + jpeg[2:],
        "exif-first.png": png[:33] + exif + png[33:],
        "exif-last.png": png[:end] + exif + png[end:],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert image_size(tmp_path / name) == read_image(tmp_path / name).shape[1::-1], name


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.99])
def test_truncated_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    data = write_image(tmp_path / f"a{suffix}", make_picture(1)).read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match=f"cut{suffix}"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(100), "not an image"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n" + bytes(4), "not an image"),
    ],
    ids=["empty", "html", "only-soi", "heic", "other-decoder"],
)
def test_not_an_image(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jpg.*{reason}"):
        read_image(path)


def test_missing_file_and_folder_and_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "none.jpg", tmp_path, tmp_path / "pipe.jpg"):
        with pytest.raises(DataError, match="no such image file"):
            read_image(path)


def test_decompression_bomb_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for read in (read_image, image_size):
        with pytest.raises(DataError, match="2500 megapixels"):
            read(path)


def test_zero_width_is_refused(tmp_path: Path) -> None:
    data = bytearray(write_image(tmp_path / "a.bmp", make_picture(1, width=8, height=8)).read_bytes())
    data[18:22] = bytes(4)
    (tmp_path / "a.bmp").write_bytes(data)
    with pytest.raises(DataError, match="no pixels"):
        read_image(tmp_path / "a.bmp")


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.bin"
    for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff"):
        data = write_image(tmp_path / f"a{suffix}", make_picture(1, width=40, height=30)).read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            for place in rng.integers(0, min(len(damaged), 200), 6):
                damaged[place] = rng.integers(0, 256)
            path.write_bytes(damaged)
            try:
                assert min(image_size(path)) > 0
                assert read_image(path).ndim == 3
            except DataError as error:
                assert "a.bin" in str(error)


def test_pixel_digest_is_of_content(tmp_path: Path) -> None:
    picture = make_picture(1)
    png = write_image(tmp_path / "a.png", picture)
    bmp = write_image(tmp_path / "a.bmp", picture)
    assert file_digest(png) != file_digest(bmp)
    assert pixel_digest(read_image(png)) == pixel_digest(read_image(bmp)) == pixel_digest(picture)
    changed = picture.copy()
    changed[0, 0, 0] ^= 1
    assert pixel_digest(changed) != pixel_digest(picture)
    assert pixel_digest(picture.reshape(320, 240, 3)) != pixel_digest(picture)
    assert pixel_digest(picture[:, ::-1]) == pixel_digest(picture[:, ::-1].copy())


def bits_apart(first: int, second: int) -> int:
    return bin(first ^ second).count("1")


def test_perceptual_hash_survives_encoding_and_size(tmp_path: Path) -> None:
    picture = make_picture(1, width=640, height=480)
    original = perceptual_hash(picture)
    path = write_image(tmp_path / "a.jpg", cv2.resize(picture, (320, 240)), cv2.IMWRITE_JPEG_QUALITY, 30)
    assert bits_apart(original, perceptual_hash(read_image(path))) <= 6
    gray = decode_gray(path.read_bytes(), name="a.jpg")
    assert gray.shape == (120, 160)
    assert bits_apart(original, perceptual_hash(gray)) <= 6
    assert bits_apart(original, perceptual_hash(make_picture(2))) > 16
    assert 0 <= original < 2**64
