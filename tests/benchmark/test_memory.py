import os
import sys
import textwrap
from pathlib import Path

import pytest

import edgeq
from edgeq.benchmark.memory import peak_memory, peak_memory_mb
from edgeq.errors import UnavailableError
from edgeq.runtimes.base import SessionOptions

SESSION = """
import numpy as np
from edgeq.errors import ModelError
from edgeq.types import TensorInfo

class Session:
    inputs = (TensorInfo("images", (1, 3, None, 8), "float32"),)

    def __init__(self, path, options):
        self.weights = np.ones(int(path.read_text()) * 1_000_000, dtype=np.uint8)
        self.threads = options.threads

    def infer(self, tensor):
        assert tensor.shape in ((1, 3, 1, 8), (1, 3, 8, 8)), tensor.shape
        print("a runtime's own line")
        return {}

def refuse(path, options):
    raise ModelError("not a model")

def hang(path, options):
    import time
    time.sleep(60)
"""


@pytest.fixture
def artifact(tmp_path, monkeypatch):
    (tmp_path / "fake_session.py").write_text(textwrap.dedent(SESSION))
    checkout = Path(edgeq.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(checkout)]))
    path = tmp_path / "model"
    path.write_text("100")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="needs VmHWM")
def test_the_models_own_memory_is_told_apart(artifact):
    peak = peak_memory(artifact, "fake_session:Session", shape=(1, 3, 8, 8))
    assert 95 <= peak.model_mb <= 130
    assert peak.before_load_mb > 10
    artifact.write_text("300")
    assert peak_memory_mb(artifact, "fake_session:Session", options=SessionOptions(threads=2)) > 300


def test_memory_of_this_process_does_not_leak_into_the_number(artifact):
    ballast = bytearray(400_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert peak_memory_mb(artifact, "fake_session:Session") < 350


def test_failure_says_why(artifact):
    with pytest.raises(UnavailableError, match="not a model"):
        peak_memory(artifact, "fake_session:refuse")
    with pytest.raises(UnavailableError, match="timed out"):
        peak_memory(artifact, "fake_session:hang", timeout_s=1.5)
