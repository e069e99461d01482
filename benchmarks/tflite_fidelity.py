"""Does a .tflite file compute what its source does? Float against ONNX, INT8 against the simulation.

One row per model: mAP or top-1 of four models on the same images, the largest difference of a score on 16
of them, and what the conversion takes; of one model the drop of its all-integer form, too. Rows that the
result file holds already are kept unless --again is given.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import common
from models import MODELS, Model

_DEMO = str(common.ROOT / "calib_data" / "demo" / "data.yaml")
_MODELS = {**MODELS, "demo-320": Model(str(Path(_DEMO).with_name("model.onnx")), _DEMO, _DEMO)}
_ALL_INTEGER = frozenset({"yolov8n-640"})
"""Models measured with `--io int8`, where no float layer may help, too."""
TARGET = "x86-tflite"
_IMAGES = 16
_SIMULATE = """
import sys
from pathlib import Path
from edgeq.runtimes import load_runtime, simulation_of
Path(sys.argv[2]).write_bytes(simulation_of(load_runtime("tflite"), Path(sys.argv[1]).read_bytes()))
"""
_CONVERT = """
import sys
from pathlib import Path
from edgeq.runtimes.tflite.lower import lower
from edgeq.runtimes.base import LowerOptions
lower(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), LowerOptions(name="converted"))
"""
_SCORES = """
import json, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from edgeq.data.dataset import open_dataset
from edgeq.data.stream import iter_tensors
from edgeq.bundle.read import open_bundle
from edgeq.model.decode import decode_classes, decode_rows
from edgeq.runtimes import load_runtime
from edgeq.runtimes.base import SessionOptions
from edgeq.types import Layout, Task
bundle = open_bundle(Path(sys.argv[1]))
head, spec = bundle.manifest.head, bundle.manifest.input
data = open_dataset(Path(sys.argv[2]), labels_required=False, class_names=head.class_names)
source = load_runtime("onnxruntime").open_session(bundle.reference_path, options=SessionOptions())
converted = load_runtime("tflite").open_session(bundle.float_artifact_path, options=SessionOptions())
worst = 0.0
for _, tensor, _ in iter_tensors(data.samples[: int(sys.argv[3])], replace(spec, layout=Layout.NCHW)):
    pair = source.infer(tensor), converted.infer(np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)))
    if head.task is Task.CLASSIFY:
        made = [np.exp(scores - np.max(scores)) for scores in (decode_classes(p, head=head) for p in pair)]
        first, second = (scores / scores.sum() for scores in made)
    else:
        (_, first), (_, second) = (decode_rows(p, head=head, spec=spec) for p in pair)
    worst = max(worst, float(np.abs(first - second).max()))
print(json.dumps({"largest_score_difference": worst}))
"""


def main() -> int:
    parser = common.arguments(__doc__, "tflite_fidelity")
    common.model_flags(parser, _MODELS)
    given = parser.parse_args()
    return common.measure_models(
        parser, given, _MODELS, lambda name: _row(name, _MODELS[name], given.data), _line
    )


def _row(name: str, model: Model, data: Path) -> dict[str, Any]:
    start = common.conditions()
    source, calib, labels = (data / part for part in (model.source, model.calib, model.labels))
    flags = [*model.quantize_flags, *(["--eval", str(labels)] if model.evaluates else [])]
    with tempfile.TemporaryDirectory() as folder:
        bundle, converted = Path(folder) / "bundle", Path(folder) / "converted"
        converted.mkdir()
        common.edgeq("quantize", source, "--target", TARGET, "--calib", calib, "-o", bundle, *flags)
        reference = bundle / "reference" / "float.onnx"
        compared = {
            "float_tflite": bundle / "reference" / "float.tflite",
            "int8_simulated": Path(folder) / "simulated.onnx",
            "int8_tflite": bundle / "model.tflite",
        }
        qdq = bundle / "model.qdq.onnx"
        common.run([sys.executable, "-c", _SIMULATE, qdq, compared["int8_simulated"]])
        metrics: dict[str, Any] = {}
        for key, path in compared.items():
            preset = model.quantize_flags[-2:] if "--preset" in model.quantize_flags else ()
            report = common.edgeq("evaluate", path, "--float", reference, "--data", labels, *preset).json()
            metric = report["drop"]["metric"]
            metrics["float_onnx"], metrics[key] = (entry[metric] for entry in report["models"])
        if name in _ALL_INTEGER:
            whole = Path(folder) / "integer"
            order = ["--target", TARGET, "--calib", calib, "--io", "int8", "-o", whole, *flags]
            common.edgeq("quantize", source, *order)
            drop = common.edgeq("evaluate", whole, "--data", labels).json()["drop"]
            metrics["all_integer_drop_points"] = drop["drop_points"]
            metrics["all_integer_drop_interval_points"] = drop["drop_interval_points"]
        scores = common.run([sys.executable, "-c", _SCORES, bundle, labels, str(_IMAGES)]).last_line()
        cost = common.run([sys.executable, "-c", _CONVERT, qdq, converted]).cost()
    return {
        "name": name,
        "source": source.name,
        **start,
        "metric": metric,
        **metrics,
        **scores,
        "conversion": cost,
    }


def _line(row: dict[str, Any]) -> str:
    whole = row.get("all_integer_drop_points")
    return (
        f"{row['name']:22} {row['metric']} float {row['float_onnx']:.4f}, .tflite {row['float_tflite']:.4f}, "
        f"scores within {row['largest_score_difference']:.1e}; INT8 simulated {row['int8_simulated']:.4f}, "
        f".tflite {row['int8_tflite']:.4f}; conversion {row['conversion']['wall_s']:.1f} s, "
        f"{row['conversion']['peak_rss_mb']:.0f} MB"
        + ("" if whole is None else f"; all-integer drop {whole:.2f}")
    )


if __name__ == "__main__":
    sys.exit(main())
