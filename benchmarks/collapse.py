"""How much of YOLOX-Nano naive INT8 leaves: edgeq's default recipe, a naive one, ONNX Runtime's defaults."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from common import (
    COCO,
    COCO_LABELS,
    ROOT,
    TARGET,
    YOLOX_NANO,
    arguments,
    conditions,
    convolutions,
    edgeq,
    report,
    run,
    write,
)

_NAIVE_RECIPE = ROOT / "benchmarks" / "recipes" / "naive.toml"
_IMAGES = 128


def main() -> int:
    given = arguments(__doc__, "collapse").parse_args()
    source, calib, labels = given.data / YOLOX_NANO, given.data / COCO, given.data / COCO_LABELS
    document: dict[str, Any] = {**conditions(), "model": source.name, "calibration_image_count": _IMAGES}
    rows = [
        _ours("edgeq, default recipe", source, calib, labels, []),
        _ours("edgeq, recipes/naive.toml", source, calib, labels, ["--recipe", _NAIVE_RECIPE]),
        _theirs("onnxruntime quantize_static, defaults", source, calib, labels),
    ]
    write(given.out, {**document, "rows": rows})
    for row in rows:
        low, high = row["drop_interval_points"]
        print(
            f"{row['name']:40} mAP 50-95 {row['float_map50_95']:.4f} -> {row['int8_map50_95']:.4f}, "
            f"drop {row['drop_points']:.2f} points [{low:.2f}, {high:.2f}]"
        )
    return 0


def _ours(name: str, source: Path, calib: Path, labels: Path, flags: list[str | Path]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        edgeq(
            "quantize", source, "--target", TARGET, "--calib", calib, "--calib-images", str(_IMAGES),
            "-o", bundle, *flags,
        )  # fmt: skip
        accuracy = edgeq("evaluate", bundle, "--data", labels).json()
        predicted = report(bundle, "quantization")["predicted_drop_points"]
        int8, every = convolutions(bundle)
    return {
        **_accuracy(name, accuracy),
        "predicted_drop_points": predicted,
        "int8_conv_count": int8,
        "conv_count": every,
    }


def _theirs(name: str, source: Path, calib: Path, labels: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "naive.onnx"
        script = ROOT / "benchmarks" / "static_quantizer.py"
        run([sys.executable, script, source, model, "--calib", calib, "--images", str(_IMAGES)])
        accuracy = edgeq("evaluate", model, "--float", source, "--data", labels).json()
    return _accuracy(name, accuracy)


def _accuracy(name: str, told: dict[str, Any]) -> dict[str, Any]:
    reference, int8 = told["models"]
    return {
        "name": name,
        "image_count": told["image_count"],
        "float_map50_95": reference["map50_95"],
        "int8_map50_95": int8["map50_95"],
        "float_map50": reference["map50"],
        "int8_map50": int8["map50"],
        "drop_points": told["drop"]["drop_points"],
        "drop_interval_points": told["drop"]["drop_interval_points"],
        "int8_size_mb": int8["size_mb"],
    }


if __name__ == "__main__":
    sys.exit(main())
