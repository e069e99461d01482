"""Letterbox, and a cache of rendered training images.

    python -m calib_data.dataset --cache /tmp/edgeq-demo/cache --count 8000

The cache is one uint8 array of letterboxed images and one array of padded labels, both plain .npy files; the
images are read without being loaded. The file of images appears under its name only when it is whole.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calib_data.parts import Array
from calib_data.render import encode_jpeg, render

PAD_VALUE = 114
MAX_LABELS = 16


@dataclass(frozen=True)
class Letterbox:
    """An image fitted into a square, and how to get back: x_in = x_image * scale + pad_x."""

    image: NDArray[np.uint8]
    scale: float
    pad_x: int
    pad_y: int


def letterbox(image: NDArray[np.uint8], size_px: int) -> Letterbox:
    """Returns an image (h, w, 3) scaled into a square, centred, with grey borders."""
    height, width = image.shape[:2]
    scale = min(size_px / width, size_px / height)
    new_w, new_h = round(width * scale), round(height * scale)
    resized = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    pad_x, pad_y = (size_px - new_w) // 2, (size_px - new_h) // 2
    canvas = np.full((size_px, size_px, 3), PAD_VALUE, np.uint8)
    canvas[pad_y : pad_y + new_h, pad_x : pad_x + new_w] = resized
    return Letterbox(canvas, scale, pad_x, pad_y)


def _sample(task: tuple[int, int]) -> tuple[NDArray[np.uint8], Array]:
    """Returns training image `index` as the network sees it, and labels (MAX_LABELS, 5): class, corners."""
    index, size_px = task
    cv2.setNumThreads(1)
    scene = render("train", index)
    stored = cv2.imdecode(np.frombuffer(encode_jpeg(scene), np.uint8), cv2.IMREAD_COLOR)
    boxed = letterbox(stored[..., ::-1], size_px)
    labels = np.full((MAX_LABELS, 5), -1, np.float32)
    count = min(len(scene.boxes), MAX_LABELS)
    offset = np.array([boxed.pad_x, boxed.pad_y] * 2, np.float32)
    labels[:count, 0] = scene.classes[:count]
    labels[:count, 1:] = scene.boxes[:count] * boxed.scale + offset
    return boxed.image, labels


def build_cache(folder: Path, *, count: int, size_px: int, workers: int) -> None:
    """Renders training images 0..count-1 into images.npy (n, s, s, 3) and labels.npy (n, 16, 5)."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "images.part"
    images = np.lib.format.open_memmap(part, "w+", np.uint8, (count, size_px, size_px, 3))
    labels = np.empty((count, MAX_LABELS, 5), np.float32)
    with get_context("spawn").Pool(workers) as pool:
        tasks = ((index, size_px) for index in range(count))
        for index, (image, label) in enumerate(pool.imap(_sample, tasks, chunksize=16)):
            images[index], labels[index] = image, label
            if index % 1000 == 0:
                print(f"{index} of {count} rendered", flush=True)
    images.flush()
    np.save(folder / "labels.npy", labels)
    part.rename(folder / "images.npy")


def main() -> None:
    """Renders the training images into a cache folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--size", type=int, default=320, help="side of the cached images in pixels")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    build_cache(args.cache, count=args.count, size_px=args.size, workers=args.workers)


if __name__ == "__main__":
    main()
