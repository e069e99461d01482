"""ONNX Runtime's own static quantiser in a process of its own, for the benchmarks to compare with.

Prints one line of JSON: the seconds of the quantiser alone, without imports and reading the model.
Pre-processing and images are those that edgeq uses for the same model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

METHODS = ("defaults", "minmax", "percentile")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="float model")
    parser.add_argument("target", type=Path, help="INT8 model to write")
    parser.add_argument("--calib", type=Path, required=True, help="data set")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--method", choices=METHODS, default="defaults")
    parser.add_argument("--memory-limit-gb", type=float, help="address space; exit code 9 when passed")
    given = parser.parse_args()
    if given.memory_limit_gb is not None:
        _limit_memory(given.memory_limit_gb)
    try:
        seconds = _quantize(given.source, given.target, given.calib, count=given.images, method=given.method)
    except MemoryError:
        sys.stderr.write(f"out of memory at the limit of {given.memory_limit_gb:g} GB\n")
        return 9
    print(json.dumps({"quantize_static_s": round(seconds, 2)}))
    return 0


def _quantize(source: Path, target: Path, calib: Path, *, count: int, method: str) -> float:
    from edgeq.cli.naive import quantize_naively
    from edgeq.data.dataset import open_dataset
    from edgeq.data.select import select
    from edgeq.model.source import load

    spec = load(source).input
    samples = select(open_dataset(calib, split="train", labels_required=False), count).samples
    started_ns = time.perf_counter_ns()
    if method == "defaults":
        quantize_naively(source, target, samples, spec)
    else:
        _quantize_static(source, target, samples, spec, method=method)
    return (time.perf_counter_ns() - started_ns) / 1e9


def _quantize_static(source: Path, target: Path, samples: Any, spec: Any, *, method: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static

    from edgeq.data.stream import iter_tensors

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._tensors = iter_tensors(samples, spec)

        def get_next(self) -> dict[str, Any] | None:
            found = next(self._tensors, None)
            return None if found is None else {spec.name: found[1]}

    calibration = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}[method]
    quantize_static(str(source), str(target), Reader(), per_channel=True, calibrate_method=calibration)


def _limit_memory(limit_gb: float) -> None:
    """Cap this process, and offer it first where the machine runs out all the same."""
    import resource

    limit = int(limit_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    victim = Path("/proc/self/oom_score_adj")
    if victim.exists():
        victim.write_text("1000")


if __name__ == "__main__":
    sys.exit(main())
