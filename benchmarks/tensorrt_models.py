"""Six models through `edgeq quantize`, `evaluate` and `audit` for TensorRT, default settings, no GPU.

Accuracy is simulated in ONNX Runtime; layer types are those of engines that TensorRT-RTX built (extra
`tensorrt-check`), a conformance check. There is no latency. One row per model; rows that the result file
holds already are kept unless --again is given.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import common
from models import MODELS, Model

TARGETS = ("jetson-orin-nano", "jetson-agx-thor", "nvidia-l4")
"""One for each compute capability that TensorRT-RTX tells something of; the QDQ model is the same for all."""


def main() -> int:
    parser = common.arguments(__doc__, "tensorrt_models")
    common.model_flags(parser, MODELS)
    given = parser.parse_args()
    return common.measure_models(
        parser, given, MODELS, lambda name: _row(name, MODELS[name], given.data), _line
    )


def _row(name: str, model: Model, data: Path) -> dict[str, Any]:
    """Quantise and evaluate one model, and audit it for each target."""
    start = common.conditions()
    source, calib, labels = data / model.source, data / model.calib, data / model.labels
    flags = [*model.quantize_flags, *(["--eval", str(labels)] if model.evaluates else [])]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        made = common.edgeq(
            "quantize", source, "--target", TARGETS[0], "--calib", calib, "-o", bundle, *flags
        )
        accuracy = common.edgeq("evaluate", bundle, "--data", labels).json()
        quantization = common.report(bundle, "quantization")
        artifact = bundle / "model.qdq.onnx"
        audits = {
            target: _audit(common.edgeq("audit", artifact, "--target", target).json(), quantization)
            for target in TARGETS
        }
    reference, int8 = accuracy["models"]
    metric = accuracy["drop"]["metric"]
    return {
        "name": name,
        "source": source.name,
        **start,
        "metric": metric,
        "image_count": accuracy["image_count"],
        "float_metric": reference[metric],
        "int8_metric": int8[metric],
        "drop_points": accuracy["drop"]["drop_points"],
        "drop_interval_points": accuracy["drop"]["drop_interval_points"],
        "simulated": accuracy["simulated"],
        "audits": audits,
        "quantize": {
            **made.cost(),
            "predicted_drop_points": quantization["predicted_drop_points"],
            "tuning": quantization["tuning"],
        },
    }


def _audit(report: dict[str, Any], quantization: dict[str, Any]) -> dict[str, Any]:
    """Counts, and the layers where plan and engine disagree."""
    planned = {layer["node"] for layer in quantization["layers"] if layer["precision"] == "int8"}
    layers = [
        layer for layer in report["layers"] if layer["op"] in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    ]
    real = {layer["name"] for layer in layers if layer["precision"] == "int8"}
    names = {layer["name"] for layer in layers}
    return {
        **report["details"],
        "layer_count": len(layers),
        "conv_count": sum(layer["op"] == "Conv" for layer in layers),
        "int8_conv_count": sum(layer["op"] == "Conv" and layer["name"] in real for layer in layers),
        "planned_int8_count": len(planned & names),
        "planned_but_float": sorted((planned & names) - real),
        "int8_but_not_planned": sorted(real - planned),
        "findings": [entry["rule"] for entry in report["findings"]],
    }


def _line(row: dict[str, Any]) -> str:
    low, high = row["drop_interval_points"]
    counts = ", ".join(
        f"{target} {audit['int8_conv_count']}/{audit['conv_count']} conv, "
        f"{len(audit['planned_but_float'])} planned but float"
        for target, audit in row["audits"].items()
    )
    return (
        f"{row['name']:22} {row['metric']} {row['float_metric']:.4f} -> {row['int8_metric']:.4f} simulated, "
        f"drop {row['drop_points']:5.2f} [{low:.2f}, {high:.2f}]; {counts}"
    )


if __name__ == "__main__":
    sys.exit(main())
