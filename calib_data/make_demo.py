"""Writes the demo's images, labels and data.yaml.

    python -m calib_data.make_demo

Calibration and evaluation images come from seeds of their own (see `render.SPLIT_SEEDS`), none is trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib_data.parts import CLASS_NAMES
from calib_data.render import Scene, encode_jpeg, render

COUNTS = {"calib": 64, "eval": 160}

DATA_YAML = """\
# The demo data set of edgeq: parts on an inspection line, rendered by calib_data/render.py.
# Licence: Apache-2.0.
# Ultralytics form: labels lie in labels/{calib,eval}/*.txt, one line per part:
# class, centre x, centre y, width, height, each divided by the width or height of the image.
path: .
train: images/calib  # 64 images to calibrate with; the model was trained on others, made the same way
val: images/eval     # 160 held-out images: neither trained on nor calibrated with
names:
"""


def label_lines(scene: Scene) -> str:
    """Returns the labels of an image as the text of a YOLO label file."""
    height, width = scene.image.shape[:2]
    size: NDArray[np.float64] = np.array([width, height, width, height], np.float64)
    lines = []
    for (x1, y1, x2, y2), class_id in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
        row = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]) / size
        lines.append(" ".join([str(class_id), *(f"{value:.6f}" for value in row)]))
    return "".join(line + "\n" for line in lines)


def write_split(root: Path, split: str, count: int, seen: set[str]) -> int:
    """Writes the images and labels of one split and returns how many parts they show.

    Raises:
        ValueError: if an image is identical to an earlier one (`seen` holds their hashes).
    """
    images, labels = root / "images" / split, root / "labels" / split
    for folder in (images, labels):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    parts = 0
    for index in range(count):
        scene = render(split, index)
        data = encode_jpeg(scene)
        digest = hashlib.sha256(data).hexdigest()
        if digest in seen:
            raise ValueError(f"image {index} of split {split} repeats an earlier image")
        seen.add(digest)
        (images / f"{split}_{index:04d}.jpg").write_bytes(data)
        (labels / f"{split}_{index:04d}.txt").write_text(label_lines(scene), encoding="ascii")
        parts += len(scene.boxes)
    return parts


def main() -> None:
    """Writes both splits and data.yaml into the demo folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demo")
    args = parser.parse_args()
    seen: set[str] = set()
    for split, count in COUNTS.items():
        print(f"{split}: {count} images, {write_split(args.out, split, count, seen)} parts")
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(CLASS_NAMES))
    (args.out / "data.yaml").write_text(DATA_YAML + names, encoding="utf-8")


if __name__ == "__main__":
    main()
