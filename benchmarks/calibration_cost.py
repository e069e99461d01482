"""What calibrating costs: time and memory of `edgeq quantize` and of ONNX Runtime's static quantiser.

All quantise YOLOX-Nano, one process each, one after the other; the whole round is repeated.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from common import (
    COCO,
    ROOT,
    TARGET,
    YOLOX_NANO,
    FailedError,
    arguments,
    conditions,
    edgeq,
    report,
    run,
    write,
)

_EDGEQ = "edgeq quantize (histograms)"
_CONTENDERS = (
    _EDGEQ,
    "onnxruntime MinMax, per channel",
    "onnxruntime Percentile, per channel",
)
_METHODS = {_CONTENDERS[1]: "minmax", _CONTENDERS[2]: "percentile"}
_PERCENTILE_NEEDS_GB = 20.0
"""For 128 images, with room for others: it holds every tensor of every image."""
_FEWER_IMAGES = 32
_RESERVE_GB = 2.0
_COSTS = ("wall_s", "cpu_s", "peak_rss_mb")


def main() -> int:
    parser = arguments(__doc__, "calibration_cost")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    source, data = given.data / YOLOX_NANO, given.data / COCO
    document: dict[str, Any] = {**conditions(), "model": source.name, "image_count": given.images}
    runs: list[dict[str, Any]] = []
    for number in range(given.rounds):
        for name in _CONTENDERS:
            runs.append({"round": number, **_run(name, source, data, given.images)})
            write(given.out, {**document, "rows": _medians(runs), "runs": runs})
    for row in _medians(runs):
        print(
            f"{row['name']:38} {row['image_count']:4} images  wall {row['wall_s']:7.1f} s  "
            f"cpu {row['cpu_s']:7.1f} s  peak {row['peak_rss_mb']:8.0f} MB  (median of {row['run_count']})"
        )
    failed = [entry for entry in runs if "error" in entry]
    for entry in failed:
        print(f"{entry['name']}, {entry['image_count']} images: {entry['error']}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, source: Path, data: Path, images: int) -> dict[str, Any]:
    """One process: its costs, or why there are none."""
    start = {"name": name, "load_average_1m": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory() as folder:
        if name == _EDGEQ:
            bundle = Path(folder) / "bundle"
            done = edgeq(
                "quantize", source, "--target", TARGET, "--calib", data, "--calib-images", str(images),
                "--no-cache", "-o", bundle,
            )  # fmt: skip
            timings = report(bundle, "quantization")["timings_s"]
            return {**start, "image_count": images, **done.cost(), "timings_s": timings}
        free_gb = psutil.virtual_memory().available / 1e9
        method = _METHODS[name]
        if method == "percentile" and free_gb < _PERCENTILE_NEEDS_GB:
            images = min(images, _FEWER_IMAGES)
        start |= {"image_count": images, "free_memory_gb": round(free_gb, 1)}
        script, model = ROOT / "benchmarks" / "static_quantizer.py", Path(folder) / "model.onnx"
        try:
            done = run(
                [sys.executable, script, source, model, "--calib", data, "--images", str(images),
                 "--method", method, "--memory-limit-gb", f"{free_gb - _RESERVE_GB:.1f}"]
            )  # fmt: skip
        except FailedError as error:
            return {**start, "error": str(error).strip().splitlines()[-1]}
        return {**start, **done.cost(), **done.last_line()}


def _medians(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per contender and number of images, failed runs left out."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for entry in runs:
        if "error" not in entry:
            groups.setdefault((entry["name"], entry["image_count"]), []).append(entry)
    return [
        {
            "name": name,
            "image_count": images,
            "run_count": len(group),
            **{cost: statistics.median(entry[cost] for entry in group) for cost in _COSTS},
        }
        for (name, images), group in groups.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
