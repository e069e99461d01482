"""Session and audit against a stand-in for macOS; nothing here has run on Core ML itself."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest

coremltools = pytest.importorskip("coremltools", reason="coremltools is not installed")

from edgeq.errors import InputError, ModelError, UnavailableError  # noqa: E402
from edgeq.model.source import load  # noqa: E402
from edgeq.runtimes.base import LayerPrecision, LowerOptions, SessionOptions  # noqa: E402
from edgeq.runtimes.coreml import RUNTIME, audit, native, probe, session  # noqa: E402
from edgeq.runtimes.coreml.session import open_interpreted  # noqa: E402
from edgeq.types import ColorOrder, InputSpec  # noqa: E402
from tests.cli.conftest import make_detector  # noqa: E402
from tests.quantize import nets  # noqa: E402
from tests.runtimes.coreml.fake import FakeModel, FakePlan  # noqa: E402
from tests.runtimes.coreml.helpers import Graph  # noqa: E402


@pytest.fixture
def mac(monkeypatch):
    from coremltools.models import compute_plan

    monkeypatch.setattr(coremltools.models, "MLModel", FakeModel)
    monkeypatch.setattr(compute_plan, "MLComputePlan", FakePlan)
    for module in (session, audit, probe):
        monkeypatch.setattr(module, "predicts_here", lambda: True)
    monkeypatch.setattr(FakeModel, "made", [])
    monkeypatch.setattr(FakePlan, "loaded", [])


@pytest.fixture
def detector(tmp_path):
    path = tmp_path / "d.onnx"
    onnx.save(make_detector(), path)
    return load(path)


@pytest.fixture
def artifact(detector, tmp_path):
    return RUNTIME.lower(detector.onnx_bytes, tmp_path, options=LowerOptions())


def lowered_image(tmp_path, color=ColorOrder.RGB, name="image"):
    g = Graph(1, 3, 8, 8)
    spec = InputSpec("x", 8, 8, color=color, mean=(1.0, 2.0, 3.0), std=(2.0, 2.0, 2.0))
    data = g.build(g.op("Relu", "x"))
    return RUNTIME.lower(data, tmp_path, options=LowerOptions(name=name, input=spec)), spec


def test_compute_units_are_chosen_and_recorded(mac, artifact):
    units = coremltools.ComputeUnit
    made = RUNTIME.open_session(artifact.path, options=SessionOptions())
    assert made.details["compute_units"] == "all"
    assert FakeModel.made[-1].compute_units is units.ALL
    made = RUNTIME.open_session(artifact.path, options=SessionOptions(compute_units="cpu-and-ne"))
    assert made.details["compute_units"] == "cpu-and-ne"
    assert FakeModel.made[-1].compute_units is units.CPU_AND_NE
    RUNTIME.open_session(artifact.path, options=SessionOptions(compute_units="cpu-only"))
    assert FakeModel.made[-1].compute_units is units.CPU_ONLY
    with pytest.raises(InputError, match="fpga"):
        RUNTIME.open_session(artifact.path, options=SessionOptions(compute_units="fpga"))


def test_every_name_of_units_is_coremltools_own():
    assert all(hasattr(coremltools.ComputeUnit, native) for native in session.UNITS.values())


def test_predictions_come_back_by_name(mac, artifact, detector):
    made = RUNTIME.open_session(artifact.path, options=SessionOptions())
    tensor = np.random.default_rng(0).random(detector.input.shape).astype(np.float32)
    assert [info.name for info in made.inputs] == ["images"]
    found = made.infer(tensor)
    wanted = open_interpreted(artifact.path, SessionOptions()).infer(tensor)
    np.testing.assert_array_equal(found["output0"], wanted["output0"])
    assert "executed_by" not in made.details


@pytest.mark.parametrize("color", ColorOrder)
def test_an_image_input_is_fed_pixels(mac, tmp_path, color):
    """Whole pixels survive the way through normalisation and back, in the model's channel order."""
    pytest.importorskip("PIL", reason="Pillow is not installed")
    artifact, spec = lowered_image(tmp_path, color)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.float32)
    tensor = (pixels - np.reshape(spec.mean, (1, 3, 1, 1))) / 2
    made = RUNTIME.open_session(artifact.path, options=SessionOptions())
    assert made.details["input"] == "image"
    assert made.inputs[0].shape == (1, 3, 8, 8)
    (found,) = made.infer(tensor.astype(np.float32)).values()
    np.testing.assert_allclose(found, np.maximum(tensor, 0), atol=1e-4)
    picture = np.asarray(FakeModel.made[-1].given[0]["x"])
    rgb = pixels[0] if color is ColorOrder.RGB else pixels[0, ::-1]
    np.testing.assert_array_equal(picture, rgb.transpose(1, 2, 0))
    (same,) = open_interpreted(artifact.path, SessionOptions()).infer(tensor.astype(np.float32)).values()
    np.testing.assert_array_equal(same, found)


def test_outputs_keep_the_sources_names(mac, tmp_path):
    g = Graph(1, 4)
    g.op("Relu", "x")
    g.nodes[-1].output[0] = "9 result/of:it"
    artifact = RUNTIME.lower(g.build("9 result/of:it"), tmp_path, options=LowerOptions())
    made = RUNTIME.open_session(artifact.path, options=SessionOptions())
    assert list(made.infer(np.ones((1, 4), np.float32))) == ["9 result/of:it"]


def test_it_does_not_run_off_macos(artifact):
    if native.predicts_here():
        pytest.skip("this is a Mac")
    assert not RUNTIME.runs_here()
    with pytest.raises(UnavailableError, match="macOS"):
        RUNTIME.open_session(artifact.path, options=SessionOptions())


def test_a_package_that_core_ml_refuses_is_told_when_it_is_opened(mac, artifact, monkeypatch):
    # coremltools warns and goes on without Core ML; predictions would then raise plain Exceptions.
    def refused(self):
        raise Exception("This model was not loaded or compiled with the Core ML Framework.")

    def warned(self, model, compute_units=None):
        self.real = coremltools.models.MLModel(model, skip_model_load=True)
        text = "You will not be able to run predict(). Underlying exception message was: bad op 'quantize'"
        warnings.warn(text, RuntimeWarning, stacklevel=2)

    monkeypatch.setattr(FakeModel, "get_compiled_model_path", refused)
    with pytest.raises(ModelError, match="not loaded or compiled"):
        RUNTIME.open_session(artifact.path, options=SessionOptions())
    monkeypatch.setattr(FakeModel, "__init__", warned)
    with pytest.raises(ModelError, match="bad op 'quantize'"):
        RUNTIME.open_session(artifact.path, options=SessionOptions())


def test_the_audit_goes_without_a_compute_plan_where_core_ml_has_none(mac, artifact, monkeypatch):
    def unsupported(path, compute_units):
        raise RuntimeError("MLComputePlan is not supported.")

    monkeypatch.setattr(FakePlan, "load_from_path", unsupported)
    report = RUNTIME.audit(artifact.path, options=SessionOptions())
    assert {layer.name for layer in report.compute_layers} >= {"stem", "down"}
    assert any("MLComputePlan is not supported" in text and "14.4" in text for text in report.remarks)


def test_the_audit_names_the_device_of_each_operation(mac, artifact):
    report = RUNTIME.audit(artifact.path, options=SessionOptions(compute_units="cpu-and-ne"))
    layers = {layer.name: layer for layer in report.compute_layers}
    assert layers["stem"].kernel.endswith("CPU")
    assert layers["down"].kernel.endswith("Neural Engine")
    assert FakePlan.loaded[-1] == (f"{artifact.path}.mlmodelc", coremltools.ComputeUnit.CPU_AND_NE)
    assert "Neural Engine" in report.details["devices"]
    assert "CPU 1" in report.details["devices"]


def quantised(tmp_path, name="model"):
    _, made = nets.quantise(nets.normalised(nets.silu_net()), target=RUNTIME.scheme(None))
    data = nets.qdq_bytes(made)
    return data, RUNTIME.lower(data, tmp_path, options=LowerOptions(name=name))


def test_the_audit_tells_int8_from_stored_weights(tmp_path):
    data, artifact = quantised(tmp_path)
    nodes = {node.name for node in onnx.load_from_string(data).graph.node if node.op_type in ("Conv", "Gemm")}
    report = RUNTIME.audit(artifact.path, options=SessionOptions())
    assert {layer.name for layer in report.compute_layers} == nodes
    assert report.int8_compute_count == len(nodes)
    assert any("Mac only" in text for text in report.remarks)
    plain = nets.normalised_bytes(nets.silu_net())
    weights = RUNTIME.lower(plain, tmp_path, options=LowerOptions(name="weights", int8_weights=True))
    report = RUNTIME.audit(weights.path, options=SessionOptions())
    assert report.int8_compute_count == 0
    assert {layer.precision for layer in report.compute_layers} == {LayerPrecision.OTHER}
    assert any("INT8 weights only" in text for text in report.remarks)


def test_int8_layers_off_the_neural_engine_are_remarked(mac, tmp_path, monkeypatch):
    _, artifact = quantised(tmp_path)
    devices = dict.fromkeys(("conv0", "v"), "CPU")
    monkeypatch.setattr(audit, "planned_devices", lambda path, units: devices)
    report = RUNTIME.audit(artifact.path, options=SessionOptions())
    assert any("slower than float16" in text for text in report.remarks)


def test_the_probe_says_what_a_machine_can_do(mac, monkeypatch):
    monkeypatch.setattr(probe.platform, "mac_ver", lambda: ("13.6", ("", "", ""), "arm64"))
    old = RUNTIME.probe()
    assert old.features["runs_packages"] == "no"
    assert any("too old" in text for text in old.problems)
    monkeypatch.setattr(probe.platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    assert RUNTIME.probe().features["runs_packages"] == "yes"
    assert not RUNTIME.probe().problems


def test_damaged_image_numbers_are_refused(tmp_path):
    artifact, _ = lowered_image(tmp_path)
    model = coremltools.models.MLModel(str(artifact.path), skip_model_load=True)
    spec = model.get_spec()
    text = spec.description.metadata.userDefined["edgeq"]
    for old, new in (
        ('"scale":0.5', '"scale":0'),
        ('"scale":0.5', '"scale":"x"'),
        ('"bias":[', '"bias":[1,'),
    ):
        assert old in text
        spec.description.metadata.userDefined["edgeq"] = text.replace(old, new)
        with pytest.raises(ModelError, match="damaged"):
            session._contents(spec)
    spec.description.metadata.userDefined["edgeq"] = "[" * 100_000
    with pytest.raises(ModelError, match="does not say"):
        session._contents(spec)


def test_the_device_side_imports_no_host_part():
    code = (
        "import sys\n"
        "import edgeq.runtimes.coreml.session, edgeq.runtimes.coreml.audit, edgeq.runtimes.coreml.probe\n"
        "heavy = {'onnx', 'onnx_ir', 'onnxruntime', 'edgeq.quantize', 'coremltools', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_building_needs_no_torch(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from edgeq.runtimes.base import LowerOptions\nfrom edgeq.runtimes.coreml import RUNTIME\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "RUNTIME.lower(data, Path(sys.argv[2]), options=LowerOptions())\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    onnx.save(make_detector(), tmp_path / "d.onnx")
    (tmp_path / "out").mkdir()
    words = [sys.executable, "-c", code, str(tmp_path / "d.onnx"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
