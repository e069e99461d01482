"""What measuring through the agent adds: its p50 against a bare loop in a process of its own, in pairs.

    python benchmarks/device_overhead.py MODEL.onnx [--pairs 7] [--seconds 5]

Needs a quiet machine: the two halves of a pair run one after the other, so a drifting clock meets both, but a
burst of other work meets one. The model should take some milliseconds. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from edgeq.device.latency import BenchOrder, Entrant, bench_on
from edgeq.device.local import LocalLink
from edgeq.device.models import file_model
from edgeq.device.worker import Worker

_BARE = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
info = session.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in info.shape]
tensor = numpy.random.default_rng(0).random(shape).astype(numpy.float32)
feed, seconds, samples = {info.name: tensor}, float(sys.argv[2]), []
warm = time.perf_counter() + 2
while time.perf_counter() < warm:
    session.run(None, feed)
end = time.perf_counter() + seconds
while time.perf_counter() < end:
    start = time.perf_counter_ns()
    session.run(None, feed)
    samples.append(time.perf_counter_ns() - start)
print(json.dumps(sorted(samples)[len(samples) // 2] / 1e6))
"""


def bare_p50_ms(model: Path, seconds: float) -> float:
    command = [sys.executable, "-c", _BARE, str(model), str(seconds)]
    # A session of its own, as the agent has: the kernel shares the CPU by sessions.
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    return float(json.loads(done.stdout))


def agent_p50_ms(worker: Worker, model: Path, seconds: float) -> float:
    entrant = Entrant("model", file_model(model, "onnxruntime"), None)
    order = BenchOrder(
        (entrant,), None, duration_s=seconds, min_runs=11, threads=1, memory=False, warm_up_s=2.0
    )
    value = bench_on(worker, order, emulated=False).report.contestants[0].quantile(50).value_ms
    assert value is not None
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    pairs = []
    with Worker(LocalLink()) as worker:
        for number in range(given.pairs):
            halves = [
                ("bare", lambda: bare_p50_ms(given.model, given.seconds)),
                ("agent", lambda: agent_p50_ms(worker, given.model, given.seconds)),
            ]
            # The order changes, so that neither always runs on what the other left behind.
            pairs.append({name: run() for name, run in (halves if number % 2 else halves[::-1])})
    ratios = [pair["agent"] / pair["bare"] for pair in pairs]
    document = {"pairs_p50_ms": pairs, "ratio_median": statistics.median(ratios), "ratios": ratios}
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
