"""Six models through `edgeq quantize`, `evaluate` and `bench` for one target with default settings.

One row per model; rows that the result file holds already are kept unless --again is given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common


@dataclass(frozen=True)
class Model:
    """A model of the shared data and how it is told to edgeq."""

    source: str
    calib: str = common.COCO
    labels: str = common.COCO_LABELS
    quantize_flags: tuple[str, ...] = ()
    evaluates: bool = False
    """`quantize` itself evaluates on the images that are left over; its cost includes that."""


MODELS = {
    "yolox-nano-416": Model(common.YOLOX_NANO),
    "yolov5n-416": Model("models/yolov5n_coco_fp32_416.onnx"),
    "yolov5n-640": Model("models/yolov5n_coco_fp32_640.onnx"),
    "yolov8n-640": Model("models/yolov8n_coco.pt"),
    "yolo11n-640": Model("models/yolo11n_coco.pt"),
    "efficientnet-lite0-224": Model(
        "models/efficientnet_lite0_imagenet_fp32_224.onnx",
        common.IMAGENET,
        common.IMAGENET,
        ("--calib-images", "64", "--preset", "tf-lite"),
        evaluates=True,
    ),
}


def main() -> int:
    parser = common.arguments(__doc__, "models-TARGET")
    parser.add_argument("--target", default=common.TARGET, help="one whose runtime runs on this machine")
    common.model_flags(parser, MODELS)
    parser.add_argument("--duration", default="20s", help="of each bench")
    given = parser.parse_args()
    given.out = given.out.with_name(given.out.name.replace("TARGET", given.target))
    return common.measure_models(parser, given, MODELS, lambda name: _row(name, MODELS[name], given), _line)


def _row(name: str, model: Model, given: argparse.Namespace) -> dict[str, Any]:
    """Quantise, evaluate and bench one model."""
    start = common.conditions()
    source, calib, labels = (given.data / part for part in (model.source, model.calib, model.labels))
    flags = [*model.quantize_flags, *(["--eval", str(labels)] if model.evaluates else [])]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        made = common.edgeq(
            "quantize", source, "--target", given.target, "--calib", calib, "-o", bundle, *flags
        )
        evaluated = common.edgeq("evaluate", bundle, "--data", labels).json()
        # ONNX Runtime runs the file as the user has it; else it is the float model that edgeq wrote.
        own_file = source.suffix == ".onnx" and given.target.endswith("onnxruntime")
        against = ["--against", str(source)] if own_file else []
        before = common.conditions()["load_average"]
        benched = common.edgeq("bench", bundle, *against, "--duration", given.duration).json()
        quantization = common.report(bundle, "quantization")
        int8, every = common.convolutions(bundle)
    return {
        "name": name,
        "target": given.target,
        "source": source.name,
        **start,
        **accuracy(evaluated),
        "int8_conv_count": int8,
        "conv_count": every,
        "latency": {
            "load_average": before,
            "baseline": "source" if against else "export",
            **latency(benched),
        },
        "quantize": {
            **made.cost(),
            "includes_evaluation": model.evaluates,
            "calibration_image_count": quantization["image_count"],
            "timings_s": quantization["timings_s"],
            "predicted_drop_points": quantization["predicted_drop_points"],
            "tuning": quantization["tuning"],
        },
    }


def accuracy(report: dict[str, Any]) -> dict[str, Any]:
    reference, int8 = report["models"]
    metric = report["drop"]["metric"]
    return {
        "metric": metric,
        "image_count": report["image_count"],
        "post_process": report["post_process"],
        "float_metric": reference[metric],
        "int8_metric": int8[metric],
        "drop_points": report["drop"]["drop_points"],
        "drop_interval_points": report["drop"]["drop_interval_points"],
        "agreement": report["agreement"],
        "float_size_mb": reference["size_mb"],
        "int8_size_mb": int8["size_mb"],
    }


def latency(report: dict[str, Any]) -> dict[str, Any]:
    """What the interleaved loop says of both, raw samples left out."""
    by_name = {entry["name"]: entry for entry in report["contestants"]}
    int8 = by_name.pop(report["judged"])
    reference, *others = by_name.values()
    ratios = {entry["name"]: entry for entry in report["speedups"]}
    ratio = ratios[report["judged"]]
    return {
        "threads": report["settings"]["threads"],
        "runs": int8["runs"],
        "float_p50_ms": reference["p50_ms"],
        "int8_p50_ms": int8["p50_ms"],
        "int8_p50_interval_ms": int8["p50_interval_ms"],
        "cpu_ratio": ratio["cpu"]["value"],
        "cpu_ratio_interval": ratio["cpu"]["interval"],
        "wall_ratio": ratio["wall"]["value"],
        "default_float": [
            {
                "name": other["name"],
                "p50_ms": other["p50_ms"],
                "int8_cpu_ratio": ratio["cpu"]["value"] / ratios[other["name"]]["cpu"]["value"],
            }
            for other in others
        ],
        "float_peak_memory_mb": reference["peak_memory_mb"],
        "int8_peak_memory_mb": int8["peak_memory_mb"],
        "other_processes_cores": report["health"]["others_cores"],
        "findings": [finding["kind"] for finding in report["findings"]],
    }


def _line(row: dict[str, Any]) -> str:
    low, high = row["drop_interval_points"]
    latency, cost = row["latency"], row["quantize"]
    return (
        f"{row['name']:22} {row['metric']} {row['float_metric']:.4f} -> {row['int8_metric']:.4f}, "
        f"drop {row['drop_points']:5.2f} [{low:.2f}, {high:.2f}]; "
        f"{row['float_size_mb']:.2f} -> {row['int8_size_mb']:.2f} MB; "
        f"p50 {latency['float_p50_ms']:.1f} -> {latency['int8_p50_ms']:.1f} ms, "
        f"CPU {latency['cpu_ratio']:.2f}x of {latency['baseline']}; "
        f"INT8 {row['int8_conv_count']}/{row['conv_count']} conv; "
        f"quantise {cost['wall_s']:.0f} s, {cost['peak_rss_mb']:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
