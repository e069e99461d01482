"""A board whose TensorRT is ``trtexec`` alone, played by a program: the commands as a user runs them."""

import importlib.util
import json
import os

import pytest

from edgeq.bundle.read import open_bundle
from tests.runtimes.tensorrt.test_trtexec import install

from .conftest import quantize_arguments, run_edgeq


@pytest.fixture
def board(tmp_path, monkeypatch):
    """The folder with ``trtexec``, first on the search path; nothing of the user's is touched."""
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT's Python module is here")
    folder = tmp_path / "bin"
    folder.mkdir()
    install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EDGEQ_DEVICE_FOLDER", str(tmp_path / "device"))
    return folder


@pytest.fixture
def bundle(detector, data_yaml, tmp_path, edgeq):
    arguments = [str(word) for word in quantize_arguments(detector, data_yaml, tmp_path / "b", "-q")]
    arguments[arguments.index("--target") + 1] = "jetson-orin-nano"
    assert edgeq(*arguments, "--max-map-drop", 90).code == 0
    return tmp_path / "b"


def test_audit_evaluate_bench_and_gate(bundle, board, data_yaml):
    def run(*words):
        result = run_edgeq(*words, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    audit = run("audit", bundle, "--on", "local")
    assert (audit["int8_compute_count"], audit["details"]["device"]) == (3, "Orin")

    accuracy = run("evaluate", bundle, "--data", data_yaml, "--images", 3, "--on", "local")
    assert accuracy["parity"]["identical"] is True
    assert accuracy["sessions"]["int8"]["by"] == "trtexec"
    assert any("every image starts a process" in text for text in accuracy["warnings"])

    timed = run("bench", bundle, "--on", "local", "--duration", "200ms", "--min-runs", 66)
    assert [entry["cpu_ms"] for entry in timed["contestants"]] == [None] * 3
    assert (timed["stages"], timed["contestants"][-1]["peak_memory_mb"]) == (None, None)
    assert timed["block_runs"] * 6 == timed["contestants"][-1]["runs"]
    assert next(row for row in timed["speedups"] if row["name"] == "int8")["wall"]["value"] == 1.5
    assert any("timed by trtexec" in text for text in timed["remarks"])

    gate = run("gate", bundle, "--max-map-drop", 90, "--max-p90-ms", 2.5, "--min-speedup", 1.2)
    assert gate["passed"] is True
    refused = run_edgeq("gate", bundle, "--max-map-drop", 90, "--max-memory-mb", 4000)
    assert refused.code == 3
    assert "NOT MEASURED" in refused.out
    assert open_bundle(bundle).report("latency")["contestants"][-1]["details"]["engine"] == "cached"
    # One engine each for the artifact, the float model and the float model in TF32, in all those commands.
    assert sum("--onnx=" in call for call in (board / "log").read_text().splitlines()) == 3


def test_bench_here_and_against_another_runtime(bundle, board, detector, edgeq):
    result = edgeq("bench", bundle, "--duration", "100ms", "--min-runs", 6)
    assert result.code == 0, result.err
    assert "in blocks of" in result.out
    assert "peak memory and the whole path were not measured" in " ".join(result.out.split())
    refused = edgeq("bench", bundle, "--against", detector, "--duration", "100ms")
    assert refused.code == 4
    assert "cannot be compared" in refused.err


def test_doctor(board, edgeq):
    found = {entry["runtime"]: entry for entry in edgeq("doctor", "--json").json["runtimes"]}["tensorrt"]
    assert (found["version"], found["features"]["gpu"]) == ("10.3.0", "Orin")
    assert "device setup DEVICE --force" in found["problems"][0]
