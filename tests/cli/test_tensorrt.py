"""A target whose runtime is not here: quantised, linted and simulated, and every report says so."""

import json

import onnx
import pytest

from edgeq.bundle.read import open_bundle
from edgeq.runtimes.tensorrt import TensorRT
from tests.runtimes.tensorrt.broken import BROKEN

from .conftest import quantize_arguments

TARGET = ("--target", "jetson-orin-nano")
SIMULATED = "simulated: tensorrt does not run on this machine"


@pytest.fixture(autouse=True)
def not_here(monkeypatch):
    """Neither TensorRT nor TensorRT-RTX, whatever the machine has."""
    monkeypatch.setattr(TensorRT, "runs_here", lambda self: False)
    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.check_available", lambda: False)


@pytest.fixture
def bundle(detector, data_yaml, tmp_path, edgeq):
    arguments = quantize_arguments(detector, data_yaml, tmp_path / "b", "--max-map-drop", 90)
    assert edgeq(*retargeted(arguments), "-q").code == 0
    return tmp_path / "b"


def retargeted(arguments):
    words = [str(word) for word in arguments]
    words[words.index("--target") + 1] = TARGET[1]
    return words


def test_the_bundle_is_the_qdq_model_and_its_reports_say_simulated(bundle):
    made = open_bundle(bundle)
    assert made.artifact_path.name == "model.qdq.onnx"
    assert made.qdq_path == made.artifact_path
    accuracy, audit = made.report("accuracy"), made.report("audit")
    assert accuracy["simulated"].startswith(SIMULATED)
    assert [model["name"] for model in accuracy["models"]] == ["float", "int8 (simulated)"]
    assert accuracy["sessions"]["int8 (simulated)"]["runtime"] == "onnxruntime"
    assert "nothing was built" in audit["details"]["verified"]
    assert audit["int8_compute_count"] == 3
    page = (bundle / "report.html").read_text()
    assert SIMULATED in page
    assert "nothing was built" in page


def test_evaluate_gate_and_predict_say_simulated(bundle, data_yaml, edgeq):
    found = edgeq("evaluate", bundle, "--data", data_yaml)
    assert SIMULATED in found.out.replace("\n", " ")
    gated = edgeq("gate", bundle, "--max-map-drop", 90, "--json")
    assert any(SIMULATED in text for text in gated.json["warnings"])
    image = next((data_yaml.parent / "images" / "val").iterdir())
    assert SIMULATED in edgeq("predict", bundle, image).err


def test_bench_tells_what_is_missing(bundle, edgeq, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    monkeypatch.setattr("edgeq.runtimes.tensorrt.session.find_trtexec", lambda: None)
    result = edgeq("bench", bundle, "--duration", "1s")
    assert result.code == 4
    assert "TensorRT's Python module cannot be loaded" in result.err


def test_audit_of_a_plain_model_for_a_target_lists_the_broken_rules(tmp_path, edgeq):
    path = tmp_path / "broken.onnx"
    onnx.save(BROKEN["weight-axis"][0](), path)
    result = edgeq("audit", path, *TARGET, "--json")
    assert result.code == 0
    assert result.json["int8_compute_count"] == 0
    (finding,) = result.json["findings"]
    assert (finding["rule"], finding["severity"], finding["node"]) == ("weight-axis", "silent-float", "y")
    assert finding["fix"]
    shown = edgeq("audit", path, *TARGET).out
    assert "Rules broken" in shown
    assert "weight-axis" in shown


def test_audit_of_a_bundle_for_another_runtimes_target_is_refused(bundle, edgeq):
    result = edgeq("audit", bundle, "--target", "x86-onnxruntime")
    assert result.code == 2
    assert "leave --target out" in result.err


def test_doctor_does_not_call_this_machine_a_gpu_target(edgeq):
    verdicts = {entry["name"]: entry for entry in edgeq("doctor", "--json").json["targets"]}
    assert not verdicts["nvidia-l4"]["here"]
    assert json.dumps(verdicts["x86-onnxruntime"]) != json.dumps(verdicts["nvidia-l4"])
