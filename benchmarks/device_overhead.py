"""What measuring through the agent adds: time to an inference, memory to the runtime's, time to the start.

    python benchmarks/device_overhead.py MODEL.onnx [--pairs 40] [--seconds 0.5]

A bare loop over ONNX Runtime and the agent's own ``bench``, each in a process of its own that stays, take
turns of half a second: what the machine does meanwhile meets both halves of a pair. The ratio is the median
over the pairs, with a bootstrap interval, of the p50 of wall and of CPU time.
The model should take about 5 ms.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

sys.path.insert(0, str(common.ROOT))

from edgeq.benchmark.ratio import paired_ratio
from edgeq.device.address import Address
from edgeq.device.latency import BenchOrder, Entrant, bench_on
from edgeq.device.local import LocalLink
from edgeq.device.models import file_model
from edgeq.device.ssh import SshLink
from edgeq.device.worker import Worker
from edgeq.errors import UnavailableError
from tools.sshd import ALIAS, running_sshd

LIMITS = {"ratio": 1.02, "memory_mb": 60.0, "start_s": 10.0}
_WARM_S = 2.0
_STARTS = 3
_BARE = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
info = session.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in info.shape]
feed = {info.name: numpy.random.default_rng(0).random(shape).astype(numpy.float32)}
for line in sys.stdin:
    end = time.perf_counter() + float(line)
    wall, cpu = [], []
    while time.perf_counter() < end:
        cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
        session.run(None, feed)
        stop, cpu_stop = time.perf_counter_ns(), time.process_time_ns()
        wall.append(stop - start)
        cpu.append(cpu_stop - cpu_start)
    print(json.dumps({"wall": wall, "cpu": cpu}), flush=True)
"""
_STATUS = Path("/proc")
Burst = dict[str, list[int]]


class Bare:
    """The loop without edgeq; it goes on at each word."""

    def __init__(self, model: Path) -> None:
        # A session of its own, as the agent has: the kernel shares the CPU by sessions.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BARE, str(model)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def burst(self, seconds: float) -> Burst:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        found: Burst = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def agent_burst(worker: Worker, model: Path, seconds: float, warm_s: float, *, min_runs: int = 3) -> Burst:
    entrant = Entrant("model", file_model(model, "onnxruntime"), None)
    order = BenchOrder(
        (entrant,), None, duration_s=seconds, min_runs=min_runs, threads=1, memory=False, warm_up_s=warm_s
    )
    (found,) = bench_on(worker, order, emulated=False).report.contestants
    return {"wall": list(found.wall_ns), "cpu": list(found.cpu_ns)}


def overhead(model: Path, pairs: int, seconds: float) -> dict[str, Any]:
    """Ratios of the agent's p50 to the bare loop's, and the memory of both processes."""
    found: list[dict[str, Burst]] = []
    bare = Bare(model)
    try:
        with Worker(LocalLink()) as worker:
            bare.burst(_WARM_S)
            agent_burst(worker, model, seconds, _WARM_S)
            for number in range(pairs):
                # The order changes, so that neither always runs on what the other left behind.
                pair: dict[str, Burst] = {}
                for name in ("bare", "agent") if number % 2 else ("agent", "bare"):
                    pair[name] = (
                        # As long as the agent's whole turn, its warm-up left out of the numbers.
                        bare.burst(seconds)
                        if name == "bare"
                        else agent_burst(worker, model, seconds, seconds / 4)
                    )
                found.append(pair)
            assert worker.device.hello is not None
            memory = {"agent": _peak_mb(worker.device.hello.pid), "bare": _peak_mb(bare.process.pid)}
    finally:
        bare.end()
    p50 = {
        clock: {name: [statistics.median(pair[name][clock]) for pair in found] for name in ("bare", "agent")}
        for clock in ("wall", "cpu")
    }
    ratios = {
        # The ratio of bare to agent is a speed-up; what is wanted is its inverse.
        clock: paired_ratio([round(v) for v in entry["agent"]], [round(v) for v in entry["bare"]]).to_json()
        for clock, entry in p50.items()
    }
    return {
        "p50_ratio": ratios,
        "p50_ms": {
            clock: {name: [round(value / 1e6, 4) for value in values] for name, values in entry.items()}
            for clock, entry in p50.items()
        },
        "median_p50_ms": {
            clock: {name: float(np.median(values)) / 1e6 for name, values in entry.items()}
            for clock, entry in p50.items()
        },
        "runs_per_burst": statistics.median(len(pair["agent"]["wall"]) for pair in found),
        "peak_memory_mb": memory,
        "memory_above_mb": memory["agent"] - memory["bare"],
    }


def starts(model: Path) -> dict[str, Any]:
    """Seconds to the first number from a device that is set up, over an sshd on 127.0.0.1.

    ``first_sample_s``: from nothing connected to the first latency of an inference, the model being there.
    ``command_s``: of all of ``edgeq bench --on``, which warms up until the latency is steady.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-overhead-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        try:
            server = stack.enter_context(running_sshd(folder))
        except UnavailableError as error:
            return {"not_measured": error.message}
        device = folder / "device"
        _link_environment(device)
        environment = {"EDGEQ_SSH": " ".join(server.ssh), "EDGEQ_DEVICE_FOLDER": str(device)}
        command = ("bench", model, "--on", ALIAS, "--duration", "100ms", "--min-runs", "1", "--no-memory")
        spent, first = [], []
        for _ in range(_STARTS):
            start = time.perf_counter()
            common.edgeq(*command, environment=environment, empty_cache=False)
            spent.append(time.perf_counter() - start)
        for _ in range(_STARTS):
            start = time.perf_counter()
            with Worker(SshLink(Address(ALIAS, ALIAS), folder=str(device), ssh=server.ssh)) as worker:
                agent_burst(worker, model, 0.001, 0.0, min_runs=1)
            first.append(time.perf_counter() - start)
    return {
        "first_sample_s": statistics.median(first),
        "command_s": statistics.median(spent[1:]),
        "command_with_transfer_s": spent[0],
    }


def _link_environment(device: Path) -> None:
    """This interpreter as the device's environment, so that nothing is installed."""
    (device / "venv" / "bin").mkdir(parents=True)
    python = device / "venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    setup = {"schema": 1, "runtimes": ["onnxruntime"], "packages": {}}
    (device / "venv" / "edgeq-setup.json").write_text(json.dumps(setup))


def _peak_mb(process_id: int) -> float:
    """High-water mark of a process's resident memory, 10^6 bytes."""
    lines = (_STATUS / str(process_id) / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def main() -> int:
    parser = common.arguments(__doc__, "device_overhead")
    parser.add_argument("model", type=Path, help="an .onnx file of about 5 ms")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each half of a pair (%(default)s)")
    given = parser.parse_args()
    document = {
        **common.conditions(),
        "model": given.model.name,
        "pairs": given.pairs,
        "seconds": given.seconds,
        **overhead(given.model, given.pairs, given.seconds),
        **starts(given.model),
        "limits": LIMITS,
    }
    common.write(given.out, document)
    for clock, ratio in document["p50_ratio"].items():
        low, high = ratio["interval"]
        print(f"p50 of {clock} time: {ratio['value']:.4f} of the bare loop's [{low:.4f}, {high:.4f}]")
    print(f"memory above the bare loop's: {document['memory_above_mb']:.1f} MB (limit 60)")
    if "first_sample_s" in document:
        print(f"first latency over SSH: {document['first_sample_s']:.1f} s (limit 10)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
