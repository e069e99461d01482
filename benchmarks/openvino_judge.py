"""One process that scores and times OpenVINO models side by side: same images, same evaluation, in turns.

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from openvino_common import evaluation_set

from edgeq import api
from edgeq.bundle.read import Bundle
from edgeq.data.stream import iter_tensors
from edgeq.evaluate.run import Evaluation
from edgeq.runtimes.base import Session, SessionOptions
from edgeq.types import Dataset

FLOATS = {"float32": SessionOptions(), "default-float": SessionOptions(default_float=True)}
_INPUTS = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--calib", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--images", type=int, help="evaluate on the first so many only")
    parser.add_argument("--duration", type=float, required=True, help="of the timing, seconds")
    parser.add_argument("models", nargs="*", metavar="NAME=XML")
    given = parser.parse_args()
    bundle = api.open_bundle(given.bundle)
    dataset = evaluation_set(bundle, given.calib, given.labels, given.images)
    paths = {
        "edgeq": bundle.artifact_path,
        **{n: Path(p) for n, _, p in (m.partition("=") for m in given.models)},
    }
    print(
        json.dumps(
            {
                "image_count": len(dataset.samples),
                "accuracy": _accuracy(bundle, paths, dataset),
                "latency": _latency(bundle, paths, dataset, given.duration),
                "int8_convolutions": {name: _int8(path) for name, path in paths.items()},
            }
        )
    )
    return 0


def _accuracy(bundle: Bundle, paths: dict[str, Path], dataset: Dataset) -> dict[str, Any]:
    """Metric and paired drop of each model; float is the ONNX model in ONNX Runtime, as always in edgeq."""
    reference = _evaluate(
        api.load_runtime("onnxruntime").open_session(bundle.reference_path, options=_two()), bundle, dataset
    )
    metric = "map50_95" if "map50_95" in reference.metrics.to_json() else "top1"
    rows: dict[str, Any] = {"metric": metric, "float": reference.metrics.to_json()[metric]}
    runtime = api.load_runtime("openvino")
    for name, path in paths.items():
        found = _evaluate(runtime.open_session(path, options=_two()), bundle, dataset)
        drop = api.compare(reference, found)
        rows[name] = {
            "value": found.metrics.to_json()[metric],
            "drop_points": round(drop.drop_points, 3),
            "drop_interval_points": drop.to_json()["drop_interval_points"],
        }
    return rows


def _two() -> SessionOptions:
    return SessionOptions(threads=2)


def _evaluate(session: Session, bundle: Bundle, dataset: Dataset) -> Evaluation:
    manifest = bundle.manifest
    post = manifest.postprocess or api.PostProcess()
    return api.evaluate(session, dataset, spec=manifest.input, head=manifest.head, post=post)


def _latency(bundle: Bundle, paths: dict[str, Path], dataset: Dataset, duration_s: float) -> dict[str, Any]:
    """CPU and wall time, one thread, all models in turns; ratios are NNCF's time over the model's."""
    runtime = api.load_runtime("openvino")
    tensors = [t for _, t, _ in iter_tensors(dataset.samples[:_INPUTS], bundle.manifest.input)]
    sessions = {name: runtime.open_session(path, options=SessionOptions()) for name, path in paths.items()}
    for name, options in FLOATS.items():
        sessions[name] = runtime.open_session(bundle.float_artifact_path, options=options)
    report = api.benchmark(
        [api.Contestant(name, session.infer, tensors) for name, session in sessions.items()],
        duration_s=duration_s,
        min_runs=32,
        baseline="nncf" if "nncf" in sessions else "float32",
    ).to_json()
    return {
        "threads": 1,
        "contestants": {
            row["name"]: {key: row[key] for key in ("p50_ms", "cpu_ms", "runs")}
            for row in report["contestants"]
        },
        "baseline": report["speedups"][0]["baseline"],
        "cpu_ratio": {row["name"]: row["cpu"] for row in report["speedups"]},
        "default_float": sessions["default-float"].details["float_precision"],
    }


def _int8(path: Path) -> str:
    report = api.load_runtime("openvino").audit(path, options=SessionOptions())
    return f"{report.int8_compute_count}/{len(report.compute_layers)}"


if __name__ == "__main__":
    sys.exit(main())
