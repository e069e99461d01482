"""The device side against stand-ins: it cannot run here, but its logic can."""

import subprocess
import sys

import numpy as np
import pytest

from edgeq.errors import ModelError, OutputError, UnavailableError
from edgeq.runtimes.base import LayerPrecision, SessionOptions
from edgeq.runtimes.tensorrt import RUNTIME, engine, probe, session
from edgeq.runtimes.tensorrt import audit as audit_module

from .fake import FakeCuda, FakeTensorRT


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "model.qdq.onnx"
    path.write_bytes(b"a model")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeq" / "tensorrt"


@pytest.fixture
def device(monkeypatch):
    """Install stand-ins; returns a function that makes them with other properties."""
    made = {}

    def use(**properties):
        made["cuda"] = FakeCuda()
        made["trt"] = FakeTensorRT(made["cuda"], **properties)
        monkeypatch.setitem(sys.modules, "tensorrt", made["trt"])
        for module in (session, audit_module, probe):
            monkeypatch.setattr(module, "load_cuda", lambda: made["cuda"])
        return made["trt"]

    return use


def test_it_infers(artifact, device):
    device()
    opened = session.open_session(artifact, SessionOptions())
    x = np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4)
    np.testing.assert_array_equal(opened.infer(x)["y"], 2 * x)
    assert [(info.name, info.shape, info.dtype) for info in opened.inputs] == [("x", (1, 3, 4, 4), "float32")]
    assert [info.name for info in opened.outputs] == ["y"]


def test_answers_are_the_callers_own(artifact, device):
    device()
    opened = session.open_session(artifact, SessionOptions())
    first = opened.infer(np.ones((1, 3, 4, 4), np.float32))["y"]
    opened.infer(np.zeros((1, 3, 4, 4), np.float32))
    assert first.sum() == 96


def test_the_gpus_own_time_is_in_the_record(artifact, device):
    device()
    opened = session.open_session(artifact, SessionOptions())
    assert "gpu_median_ms" not in opened.details
    for _ in range(3):
        opened.infer(np.ones((1, 3, 4, 4), np.float32))
    assert opened.gpu_times_ms == (0.25,) * 3
    assert opened.details["gpu_median_ms"] == "0.2500"
    assert opened.details["device"] == "Orin"


def test_everything_is_given_back(artifact, device):
    trt = device()
    opened = session.open_session(artifact, SessionOptions())
    opened.close()
    opened.close()
    assert not trt.cuda.memory
    assert not trt.cuda.streams
    assert not trt.cuda.events


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (3, 4, 4)])
def test_another_shape_is_refused(artifact, device, shape):
    device()
    opened = session.open_session(artifact, SessionOptions())
    with pytest.raises(ModelError, match="the input is"):
        opened.infer(np.zeros(shape, np.float32))


def test_dynamic_shapes_are_refused(artifact, device):
    device(shape=(1, 3, -1, -1))
    with pytest.raises(ModelError, match="dynamic shape"):
        session.open_session(artifact, SessionOptions())


def test_the_network_is_strongly_typed_and_detailed(artifact, device):
    trt = device()
    session.open_session(artifact, SessionOptions())
    assert trt.network_flags == [2]
    (config,) = trt.configs
    assert config.profiling_verbosity == "detailed"
    assert config.flags == set()


def test_tf32_only_where_the_default_is_wanted(artifact, device):
    trt = device()
    opened = session.open_session(artifact, SessionOptions(default_float=True))
    assert trt.configs[0].flags == {"tf32"}
    assert opened.details["float_precision"] == "tf32"


def test_an_engine_is_built_once(artifact, device, own_cache):
    trt = device()
    assert session.open_session(artifact, SessionOptions()).details["engine"] == "built now"
    assert session.open_session(artifact, SessionOptions()).details["engine"] == "cached"
    assert trt.builds == 1
    assert len(list(own_cache.glob("*.engine"))) == 1
    assert own_cache.stat().st_mode & 0o077 == 0


def test_another_model_version_device_or_precision_is_another_engine(artifact, device, own_cache):
    trt = device()
    session.open_session(artifact, SessionOptions())
    session.open_session(artifact, SessionOptions(default_float=True))
    artifact.write_bytes(b"another model")
    session.open_session(artifact, SessionOptions())
    trt.cuda.device_name = lambda: "Thor"
    session.open_session(artifact, SessionOptions())
    trt.__version__ = "10.4.0"
    session.open_session(artifact, SessionOptions())
    assert trt.builds == 5
    assert len(list(own_cache.glob("*.engine"))) == 5


def test_builds_share_a_timing_cache_of_their_version_and_device(artifact, device, own_cache):
    device()
    session.open_session(artifact, SessionOptions())
    artifact.write_bytes(b"another model")
    session.open_session(artifact, SessionOptions())
    (timing,) = own_cache.glob("timing-*.cache")
    assert timing.name == "timing-10.3.0-Orin-8.7.cache"
    assert timing.read_bytes() == b"timed timed "


def test_a_cached_engine_that_does_not_load_is_built_anew(artifact, device):
    trt = device()
    session.open_session(artifact, SessionOptions())
    trt.damaged = True
    assert session.open_session(artifact, SessionOptions()).details["engine"] == "built now"
    assert trt.builds == 2


def test_a_cache_that_others_can_write_is_not_used(artifact, device, own_cache):
    device()
    own_cache.mkdir(parents=True)
    own_cache.chmod(0o777)
    with pytest.raises(OutputError, match="engines are code"):
        session.open_session(artifact, SessionOptions())


def test_refusals_name_the_node(artifact, device):
    device(refuse="Scale coefficients must all be positive")
    with pytest.raises(ModelError, match="at conv1: Scale coefficients"):
        session.open_session(artifact, SessionOptions())


def test_a_missing_model_is_said(tmp_path, device):
    device()
    with pytest.raises(ModelError, match="no model file"):
        session.open_session(tmp_path / "none.onnx", SessionOptions())


@pytest.mark.parametrize("version", ["8.6.2", "nonsense"])
def test_what_has_no_strongly_typed_networks_is_refused(artifact, device, version, monkeypatch):
    device(version=version)
    monkeypatch.setattr(session, "find_trtexec", lambda: None)
    with pytest.raises(UnavailableError, match="strongly typed"):
        session.open_session(artifact, SessionOptions())


def test_the_dla_where_the_version_has_it(artifact, device):
    trt = device(version="11.4.1")
    opened = session.open_session(artifact, SessionOptions(dla_core=1))
    (config,) = trt.configs
    assert (config.DLA_core, config.default_device_type) == (1, "dla")
    assert "fallback" in config.flags
    assert opened.details["unit"].startswith("DLA core 1")


@pytest.mark.parametrize(
    ("version", "core", "says"), [("10.3.0", 0, "no explicitly quantised"), ("11.4.1", 2, "no DLA core 2")]
)
def test_no_dla_where_it_has_not(artifact, device, version, core, says):
    device(version=version)
    with pytest.raises(UnavailableError, match=says):
        session.open_session(artifact, SessionOptions(dla_core=core))


@pytest.mark.parametrize(("told", "meant"), [("Int8", LayerPrecision.INT8), ("Float", LayerPrecision.FLOAT)])
def test_the_audit_takes_the_engine_inspectors_word(artifact, device, told, meant, monkeypatch):
    device(precision=told)
    monkeypatch.setattr(type(RUNTIME), "runs_here", lambda self: True)
    report = RUNTIME.audit(artifact, options=SessionOptions())
    assert [(layer.name, layer.op, layer.precision) for layer in report.layers] == [("conv1", "Conv", meant)]
    assert report.details["device"] == "Orin"
    assert "verified" not in report.details


def test_the_probe_names_version_gpu_and_dla(device):
    device()
    found = probe.probe()
    assert found.version == "10.3.0"
    assert (found.features["gpu"], found.features["dla-cores"]) == ("Orin", "2")
    assert found.problems == ()


def test_the_probe_of_a_machine_without(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(probe, "find_trtexec", lambda: None)
    found = probe.probe()
    assert found.version is None
    assert "simulated" in found.features["accuracy"]


def test_without_module_and_trtexec_the_error_names_the_cure(artifact, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(session, "find_trtexec", lambda: None)
    with pytest.raises(UnavailableError) as raised:
        session.open_session(artifact, SessionOptions())
    assert "python3-libnvinfer" in str(raised.value)


def test_versions():
    assert engine.version_of("11.4.1") == (11, 4)


def test_the_device_side_needs_neither_onnx_nor_the_quantiser():
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnx", "onnx_ir", "onnxruntime", "pydantic", "cv2", "rich", "typer"):
            raise ImportError(name)
        if name.startswith("edgeq.quantize"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import edgeq.runtimes.tensorrt
for name in ("session", "audit", "probe", "engine", "cuda", "layers", "trtexec"):
    __import__("edgeq.runtimes.tensorrt." + name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
