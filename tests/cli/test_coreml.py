"""The commands with Core ML on a machine that is no Mac: built, simulated, never timed."""

import shutil

import onnx
import pytest

from edgeq.bundle.read import open_bundle
from edgeq.runtimes.coreml import CoreMl

from .conftest import make_data, make_detector

pytest.importorskip("coremltools", reason="coremltools is not installed")

SIMULATED = "simulated: coreml does not run on this machine"


@pytest.fixture(autouse=True)
def not_here(monkeypatch):
    monkeypatch.setattr(CoreMl, "runs_here", lambda self: False)
    for module in ("session", "audit", "probe"):
        monkeypatch.setattr(f"edgeq.runtimes.coreml.{module}.predicts_here", lambda: False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coreml")
    onnx.save(make_detector(), folder / "tiny.onnx")
    make_data(folder / "set")
    return folder


def quantize(made, folder, *more):
    return [
        "quantize", made / "tiny.onnx", "--target", "apple-neural-engine", "-o", folder,
        "--skip-fit-check", "--no-cache", "--quiet", *more,
    ]  # fmt: skip


@pytest.fixture
def bundle(made, tmp_path, edgeq):
    if not (made / "bundle").exists():
        data = made / "set" / "data.yaml"
        done = edgeq(*quantize(made, made / "bundle", "--calib", data, "--eval", data))
        assert done.code == 0, done.err
    return shutil.copytree(made / "bundle", tmp_path / "bundle")


def test_the_bundle_holds_the_package_and_what_simulates_it(bundle):
    opened = open_bundle(bundle)
    assert opened.manifest.artifact == "model.mlpackage"
    assert opened.artifact_path.is_dir()
    assert opened.manifest.input.layout.value == "nchw"
    roles = {name: entry.role.value for name, entry in opened.manifest.files.items()}
    inside = "Data/com.apple.CoreML/model.mlmodel"
    assert roles[f"model.mlpackage/{inside}"] == "artifact"
    assert roles[f"reference/float.mlpackage/{inside}"] == "reference"
    assert roles["model.qdq.onnx"] == "qdq"
    assert opened.report("accuracy")["simulated"].startswith(SIMULATED)
    audit = opened.report("audit")
    assert {layer["name"] for layer in audit["layers"] if layer["op"] == "Conv"} == {
        "stem", "down", "depth", "predict",
    }  # fmt: skip
    assert any("Mac only" in text for text in audit["remarks"])


def test_accuracy_is_simulated_and_latency_refused(bundle, made, edgeq):
    found = edgeq("evaluate", bundle, "--data", made / "set" / "data.yaml")
    assert SIMULATED in found.out.replace("\n", " ")
    refused = edgeq("bench", bundle, "--duration", "200ms")
    assert refused.code == 4
    assert "macOS" in refused.err


def test_precisions_without_calibration(made, tmp_path, edgeq):
    sizes = {}
    for precision in ("int8-weights", "float16", "float32"):
        folder = tmp_path / precision
        done = edgeq(*quantize(made, folder, "--precision", precision))
        assert done.code == 0, done.err
        opened = open_bundle(folder)
        assert opened.manifest.plan["precision"] == precision
        (weights,) = (file for file in opened.artifact_path.rglob("weight.bin"))
        sizes[precision] = weights.stat().st_size
    assert sizes["int8-weights"] < sizes["float16"] < sizes["float32"]


def test_a_plain_package_is_no_bundle(bundle, edgeq):
    refused = edgeq("evaluate", bundle / "model.mlpackage", "--data", bundle)
    assert refused.code == 4
    assert "macOS" in refused.err


def test_an_option_of_the_runtime_is_checked_before_anything_runs(bundle, made, edgeq):
    data = made / "set" / "data.yaml"
    done = edgeq(
        "evaluate", bundle, "--data", data, "--runtime-option", "compute-units=cpu-only", "--no-save"
    )
    assert done.code == 0, done.err
    assert "compute-units=cpu-only" in done.err
    for command in (
        ("bench", bundle),
        ("audit", bundle),
        ("gate", bundle),
        ("evaluate", bundle, "--data", data),
    ):
        refused = edgeq(*command, "--runtime-option", "dla-core=0")
        assert refused.code == 2
        assert "coreml has no option 'dla-core'" in refused.err


def test_export_writes_an_app_model(bundle, tmp_path, edgeq):
    out = tmp_path / "app.mlpackage"
    done = edgeq("export", bundle, "-o", out, "--confidence", "0.4", "--json")
    assert done.code == 0, done.err
    assert done.json["confidence"] == 0.4
    assert done.json["size_mb"] > 0
    assert "written, not tried" in done.err
    again = edgeq("export", bundle, "-o", out)
    assert again.code == 2
    assert "--force" in again.err
    wrong = edgeq("export", bundle, "-o", tmp_path / "app.tflite")
    assert "mlpackage" in wrong.err
