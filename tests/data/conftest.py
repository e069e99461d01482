"""Images and data sets made on the spot, and the shared real ones where they are."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("EDGEQ_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"shared test data not found at {folder} (set EDGEQ_SHARED_DATA)")
    return folder


def make_picture(seed: int, *, width: int = 320, height: int = 240) -> np.ndarray:
    """Smooth random picture, uint8 (h, w, 3): different seeds look different."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_image(path: Path, rgb: np.ndarray, *params: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]), params)
    return path


def exif_block(orientation: int, order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + struct.pack(f"{order}I", 0)


def app1(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def with_exif(jpeg: bytes, orientation: int, *, order: str = "<", before: bytes = b"") -> bytes:
    return jpeg[:2] + before + app1(b"Exif\0\0" + exif_block(orientation, order)) + jpeg[2:]


@pytest.fixture
def yolo_set(tmp_path: Path) -> Callable[..., Path]:
    """Makes a data.yaml set: labels by image name (None: no label file), returns the yaml."""

    def make(labels: dict[str, str | None], *, yaml: str = "names: [cat, dog]", split: str = "val") -> Path:
        for number, (name, text) in enumerate(labels.items()):
            write_image(
                tmp_path / "images" / split / f"{name}.jpg", make_picture(number, width=200, height=100)
            )
            if text is not None:
                file = tmp_path / "labels" / split / f"{name}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        file = tmp_path / "data.yaml"
        file.write_text(f"path: .\n{split}: images/{split}\n{yaml}\n")
        return file

    return make
