"""The calibration images of an edgeq bundle in the forms that other quantisers take.

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeq import api
from edgeq.data.stream import iter_tensors
from edgeq.types import Dataset, Layout


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="whose images and pre-processing are taken")
    parser.add_argument("--calib", type=Path, required=True, help="data set that it was calibrated on")
    parser.add_argument("--tensors", type=Path, required=True, help=".npy to write, float32 (n, h, w, 3)")
    parser.add_argument("--dataset", type=Path, required=True, help="folder for Ultralytics' form of them")
    given = parser.parse_args()
    manifest = api.open_bundle(given.bundle).manifest
    if manifest.calibration is None:
        parser.error(f"{given.bundle} was not calibrated")
    dataset = api.open_dataset(given.calib, split="train", labels_required=False)
    known = {sample.key: sample for sample in dataset.samples}
    samples = [known[entry.key] for entry in manifest.calibration.images]
    spec = replace(manifest.input, layout=Layout.NHWC)
    shape = (len(samples), *spec.shape[1:])
    every = np.lib.format.open_memmap(given.tensors, mode="w+", dtype=np.float32, shape=shape)
    for number, (_, tensor, _) in enumerate(iter_tensors(samples, spec)):
        every[number] = tensor[0]
    _link(dataset, [sample.path for sample in samples], given.dataset)
    print(json.dumps({"image_count": len(samples), "input": spec.name, "imgsz": spec.height_px}))
    return 0


def _link(dataset: Dataset, images: list[Path], folder: Path) -> None:
    """Links to images and labels: Ultralytics leaves files of its own beside them."""
    for kind in ("images", "labels"):
        (folder / kind / "calib").mkdir(parents=True)
    for image in images:
        (folder / "images" / "calib" / image.name).symlink_to(image.resolve())
        label = image.resolve().parents[2] / "labels" / image.parent.name / f"{image.stem}.txt"
        if label.is_file():
            (folder / "labels" / "calib" / label.name).symlink_to(label)
    names = {str(index): name for index, name in enumerate(dataset.class_names)}
    lines = [f"path: {folder.resolve()}", "train: images/calib", "val: images/calib", "names:"]
    lines += [f"  {index}: {json.dumps(name)}" for index, name in names.items()]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
