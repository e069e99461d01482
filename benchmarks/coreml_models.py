"""Models through `edgeq quantize` for Core ML, and what can be verified of the packages without a Mac.

No latency: Core ML is part of macOS. One row per model; rows that the result file holds already are kept
unless --again is given.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import common
from models import MODELS, Model

TARGET = "apple-neural-engine"


def main() -> int:
    parser = common.arguments(__doc__, "coreml_models")
    common.model_flags(parser, MODELS)
    parser.add_argument("--images", type=int, default=64, help="to interpret each package on")
    given = parser.parse_args()
    return common.measure_models(
        parser, given, MODELS, lambda name: _row(name, MODELS[name], given.data, given.images), _line
    )


def _row(name: str, model: Model, data: Path, images: int) -> dict[str, Any]:
    """Quantise one model and judge its package."""
    start = common.conditions()
    source, calib, labels = data / model.source, data / model.calib, data / model.labels
    flags = [*model.quantize_flags, *(["--eval", str(labels)] if model.evaluates else [])]
    judge = Path(__file__).with_name("coreml_judge.py")
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        made = common.edgeq("quantize", source, "--target", TARGET, "--calib", calib, "-o", bundle, *flags)
        accuracy = common.edgeq("evaluate", bundle, "--data", labels).json()
        judged = common.run([sys.executable, judge, bundle, labels, "--images", str(images)])
        int8, convolutions = common.convolutions(bundle)
    return {
        "name": name,
        "source": source.name,
        **start,
        "simulated": accuracy["simulated"],
        "drop_points": accuracy["drop"]["drop_points"],
        "drop_interval_points": accuracy["drop"]["drop_interval_points"],
        "evaluated_image_count": accuracy["image_count"],
        "int8_conv_count": int8,
        "conv_count": convolutions,
        "package": judged.last_line(),
        "quantize": made.cost(),
    }


def _line(row: dict[str, Any]) -> str:
    package = row["package"]
    full, half = package["float32"], package["float16"]
    share = 4 * package["size_mb"] / package["float32_size_mb"]
    return (
        f"{row['name']:22} {row['int8_conv_count']}/{row['conv_count']} conv in INT8, simulated drop "
        f"{row['drop_points']:.2f}; {package['size_mb']:.2f} MB ({share:.2f} of a quarter of float32); "
        f"flips {full['flip_count']} and {half['flip_count']} (float16) of {full['quantised_value_count']}, "
        f"products {full['worst_product_error']:.1e}; outputs in float32 off by "
        f"{full['largest_output_difference']:.1e}; float16 below the simulation by "
        f"{half['below_simulation_points']:.2f} points on {package['image_count']} images"
        f"{_pipeline(package.get('pipeline'))}"
    )


def _pipeline(found: dict[str, Any] | None) -> str:
    """The exported app's model against edgeq's own decoding of the package."""
    if found is None:
        return ""
    counts = found["given_thresholds"]
    return (
        f"; pipeline: {counts['detection_count']} detections, other ones on "
        f"{counts['image_count_with_others']} images, {found['below_package_points']:.2f} points below"
    )


if __name__ == "__main__":
    sys.exit(main())
