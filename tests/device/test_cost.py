"""What the agent costs: time on top of a bare loop, memory on top of the runtime; no absolute time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.benchmark.loop import Contestant, measure
from edgeq.benchmark.steady import WarmUp
from edgeq.device.agent.wire import LIST_CHUNK
from edgeq.device.latency import BenchOrder, Entrant, bench_on
from edgeq.device.local import LocalLink
from edgeq.device.models import file_model
from edgeq.device.worker import Worker

_BARE = """
import sys, json
def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS")) * 1024 / 1e6
import numpy, onnxruntime
options = onnxruntime.SessionOptions(); options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
x = numpy.zeros((1, 3, 64, 64), numpy.float32)
for _ in range(3):
    session.run(None, {"images": x})
print(json.dumps(peak()))
"""


@pytest.fixture
def slow_model(tmp_path):
    """A few milliseconds of convolutions."""
    rng = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(rng.normal(0, 0.05, (64, 64, 3, 3)).astype(np.float32), "w")]
    names = ["images", "a", "b", "c"]
    nodes = [
        helper.make_node("Conv", [source, "w"], [target], pads=[1] * 4, kernel_shape=[3, 3])
        for source, target in zip(names, [*names[1:], "out"], strict=True)
    ]
    shape = [1, 64, 48, 48]
    graph = helper.make_graph(
        nodes, "slow", [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)], tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path = tmp_path / "slow.onnx"
    onnx.save(model, path)
    return path


def test_the_loop_adds_nothing_to_a_model_of_some_milliseconds(slow_model):
    """The same session, once called bare and once through edgeq's session, in turns with each other.

    In turns, and by the median of paired ratios: what the machine does meanwhile meets both.
    """
    from edgeq.runtimes.base import SessionOptions
    from edgeq.runtimes.onnxruntime.session import open_session

    session = open_session(slow_model, SessionOptions(threads=1))
    tensor = np.random.default_rng(0).random((1, 64, 48, 48), dtype=np.float32)
    native, names = session._native, [info.name for info in session.outputs]
    contestants = [
        Contestant("bare", lambda x: native.run(names, {"images": x}), [tensor]),
        Contestant("edgeq", session.infer, [tensor]),
    ]
    report = measure(contestants, duration_s=1.5, min_runs=100, warm_up=WarmUp(max_s=1.0), baseline="bare")
    (speedup,) = report.speedups
    assert 1 / speedup.cpu.value < 1.02


def test_beats_and_waiting_threads_do_not_show_in_the_agents_samples(tmp_path, slow_model):
    """Two equal contestants in the agent: their ratio is 1 whatever the machine does."""
    entrants = tuple(Entrant(name, file_model(slow_model, "onnxruntime"), None) for name in ("a", "b"))
    order = BenchOrder(entrants, "a", duration_s=1.5, min_runs=64, threads=1, memory=False, warm_up_s=0.5)
    with Worker(LocalLink(tmp_path / "dev")) as worker:
        done = bench_on(worker, order, emulated=False)
    assert len(done.report.contestants[0].wall_ns) <= 100 * LIST_CHUNK
    assert abs(done.report.speedups[0].cpu.value - 1) < 0.05


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_agents_own_memory_is_under_60_mb(tmp_path, model_file, pictures):
    from edgeq.device.predictions import image_files

    from .test_work import predictor

    done = subprocess.run(
        [sys.executable, "-c", _BARE, str(model_file)], capture_output=True, text=True, check=True
    )
    bare_mb = json.loads(done.stdout)
    with Worker(LocalLink(tmp_path / "dev")) as worker:
        predictor(worker, model_file).predict(image_files(pictures))
        lines = Path(f"/proc/{worker.device.hello.pid}/status").read_text().splitlines()
    agent_mb = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024 / 1e6
    print(f"agent {agent_mb:.0f} MB, bare {bare_mb:.0f} MB")
    assert agent_mb - bare_mb < 60
