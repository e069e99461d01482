"""``trtexec`` played by `trtexec_program`: the session, the cache, the probe."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import ModelError, OutputError, UnavailableError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.optional import SelfTimedSession
from edgeq.runtimes.tensorrt import audit as audit_module
from edgeq.runtimes.tensorrt import probe, session
from edgeq.runtimes.tensorrt.trtexec_session import TrtexecSession, _Written

from .fake import FakeCuda, FakeTensorRT

PROGRAM = Path(__file__).with_name("trtexec_program.py")
X = np.arange(4, dtype=np.float32).reshape(1, 4)


def install(folder, version="100300"):
    """The program as ``trtexec`` in a folder; it notes its calls in ``log`` there."""
    path = folder / "trtexec"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{PROGRAM}" {version} "{folder / "log"}" "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def program(tmp_path):
    return lambda version="100300": install(tmp_path, version)


@pytest.fixture
def calls(tmp_path):
    return lambda: (tmp_path / "log").read_text().splitlines()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeq" / "tensorrt"


@pytest.fixture
def artifact(tmp_path):
    return save(tmp_path / "model.onnx")


def save(path, *, dtype=TensorProto.FLOAT, name="x:0"):
    """``y = x / 3`` and the int64 positions of what is not 0."""
    three = numpy_helper.from_array(np.array(3, helper.tensor_dtype_to_np_dtype(dtype)), "three")
    nodes = [
        helper.make_node("Div", [name, "three"], ["y"]),
        helper.make_node("ArgMax", [name], ["best"], axis=1),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes, "thirds", [helper.make_tensor_value_info(name, dtype, [1, 4])],
            [helper.make_tensor_value_info("y", dtype, [1, 4]),
             helper.make_tensor_value_info("best", TensorProto.INT64, [1, 1])],
            [three],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )  # fmt: skip
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("version", ["100300", "101300", "110401"])
def test_it_infers_to_the_bit_whatever_the_outputs_types(program, artifact, version):
    opened = TrtexecSession(program(version), artifact, SessionOptions())
    found = opened.infer(X)
    np.testing.assert_array_equal(found["y"], X / np.float32(3))
    assert (found["best"].dtype, found["best"].tolist()) == (np.int64, [[3]])
    assert [(info.name, info.shape, info.dtype) for info in opened.inputs] == [("x:0", (1, 4), "float32")]
    assert {(info.name, info.shape) for info in opened.outputs} == {("y", (1, 4)), ("best", (1, 1))}
    assert opened.details["device"] == "Orin"
    assert "python3-libnvinfer" in opened.details["warning"]


def test_a_half_precision_input_gets_no_file_of_twice_its_size(program, tmp_path):
    opened = TrtexecSession(program(), save(tmp_path / "h.onnx", dtype=TensorProto.FLOAT16), SessionOptions())
    found = opened.infer(X)["y"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, X.astype(np.float16) / np.float16(3))
    with pytest.raises(ModelError, match=r"\[2, 4\], not \[1, 4\]"):
        opened.infer(np.zeros((2, 4), np.float32))


def test_bfloat16_is_read_and_a_short_file_is_not(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(np.array([0x3F80, 0xC040], np.uint16).tobytes())
    assert _Written(False, "y", (2,), "float32", True, path).read().tolist() == [1.0, -3.0]
    with pytest.raises(ModelError, match="4 bytes for y"):
        _Written(False, "y", (3,), "float32", True, path).read()


def test_10_builds_with_strong_types_and_11_by_itself(program, artifact, calls):
    TrtexecSession(program(), artifact, SessionOptions())
    TrtexecSession(program("110401"), artifact, SessionOptions(default_float=True))
    ten, eleven = (call for call in calls() if "--onnx=" in call)
    flags = ("--stronglyTyped", "--noTF32", "--profilingVerbosity=detailed", "--memPoolSize=workspace:1024")
    assert all(flag in ten for flag in flags)
    assert "--stronglyTyped" not in eleven
    assert "--noTF32" not in eleven


def test_an_engine_is_built_once_for_model_version_and_options(program, artifact, calls, cache, tmp_path):
    def builds():
        return sum("--onnx=" in call for call in calls())

    path = program()
    assert TrtexecSession(path, artifact, SessionOptions()).details["engine"] == "built now"
    again = TrtexecSession(path, artifact, SessionOptions())
    assert (again.details["engine"], builds()) == ("cached", 1)
    np.testing.assert_array_equal(again.infer(X)["y"], X / np.float32(3))
    TrtexecSession(path, artifact, SessionOptions(default_float=True))
    assert builds() == 2
    TrtexecSession(path, save(tmp_path / "other.onnx", name="z"), SessionOptions())
    assert builds() == 3
    (timing,) = cache.glob("timing-10.3.0-Orin-8.7.cache")
    assert timing.read_bytes() == b"timed " * 3
    TrtexecSession(program("100301"), artifact, SessionOptions())
    assert builds() == 4


def test_the_module_finds_what_trtexec_built(program, artifact, cache, monkeypatch):
    TrtexecSession(program(), artifact, SessionOptions())
    cuda = FakeCuda()
    trt = FakeTensorRT(cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(session, "load_cuda", lambda: cuda)
    asked = []
    monkeypatch.setattr(trt, "_deserialize", lambda plan: asked.append(plan))
    with pytest.raises(ModelError):
        session.open_session(artifact, SessionOptions())
    (engine,) = cache.glob("*.engine")
    assert asked[0].startswith(b"engine of 100300")
    assert engine.is_file()


def test_a_damaged_engine_is_built_anew(program, artifact, cache):
    path = program()
    TrtexecSession(path, artifact, SessionOptions())
    (engine,) = cache.glob("*.engine")
    engine.write_bytes(b"rotten")
    opened = TrtexecSession(path, artifact, SessionOptions())
    assert opened.details["engine"] == "built now"
    assert opened.infer(X)["best"].tolist() == [[3]]


def test_what_failed_is_said_in_its_words_and_leaves_no_engine(program, tmp_path, cache):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"bad zero point")
    with pytest.raises(ModelError, match="the zero point must be all zeros"):
        TrtexecSession(program(), bad, SessionOptions())
    assert not list(cache.glob("*"))
    with pytest.raises(ModelError, match="there is no model file"):
        TrtexecSession(program(), tmp_path / "none.onnx", SessionOptions())


def test_a_cache_that_others_can_write_is_refused(program, artifact, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(OutputError, match="engines are code"):
        TrtexecSession(program(), artifact, SessionOptions())


@pytest.mark.parametrize("version", ["100300", "110401"])
def test_it_times_itself(program, artifact, calls, version):
    opened = TrtexecSession(program(version), artifact, SessionOptions())
    assert isinstance(opened, SelfTimedSession)
    times = opened.time_runs(X, runs=5, duration_s=0.0, warm_up_s=0.25)
    assert times[-5:-3] in ((3_000_000, 3_030_000), (3_030_000, 3_060_000))
    assert opened.details["gpu_median_ms"].startswith("2.8")
    last = calls()[-1]
    copies = "--includeDataTransfers" if version == "110401" else "--useSpinWait"
    assert all(
        flag in last for flag in ("--iterations=5", "--duration=0.000", "--warmUp=250", "--exposeDMA", copies)
    )


def test_times_that_cannot_be_are_refused(program, artifact, monkeypatch):
    opened = TrtexecSession(program(), artifact, SessionOptions())
    for text, words in (("[]", "0 times, not 5"), ("nonsense", "no times that can be read")):
        monkeypatch.setattr(
            opened, "_run", lambda *a, text=text, **k: opened._path("times.json").write_text(text)
        )
        with pytest.raises(ModelError, match=words):
            opened.time_runs(X, runs=5, duration_s=0.0, warm_up_s=0.0)


@pytest.mark.parametrize("version", ["8502", "080601"])
def test_old_versions_are_refused(program, artifact, version):
    with pytest.raises(UnavailableError, match="TensorRT 10"):
        TrtexecSession(program(version), artifact, SessionOptions())


def test_the_dla_where_the_version_has_it(program, artifact, calls):
    with pytest.raises(UnavailableError, match=r"TensorRT 10\.3\.0 runs no explicitly quantised network"):
        TrtexecSession(program(), artifact, SessionOptions(dla_core=0))
    opened = TrtexecSession(program("110401"), artifact, SessionOptions(dla_core=1))
    assert opened.details["unit"].startswith("DLA core 1")
    build, load = calls()[-2:]
    assert "--useDLACore=1 --allowGPUFallback" in build
    assert "--useDLACore=1" in load
    with pytest.raises(ModelError, match="Cannot create DLA engine, 2 not available"):
        TrtexecSession(program("110401"), artifact, SessionOptions(dla_core=2))


def test_it_stands_in_for_the_module(program, artifact, monkeypatch):
    path = program()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for module in (session, audit_module, probe):
        monkeypatch.setattr(module, "find_trtexec", lambda: path)
    assert session.open_session(artifact, SessionOptions()).details["version"] == "10.3.0"
    report = audit_module.audit(artifact, options=SessionOptions())
    assert (report.details["by"], report.details["device"]) == ("trtexec", "Orin")
    found = probe.probe()
    assert (found.version, found.features["gpu"], found.features["compute-capability"]) == (
        "10.3.0", "Orin", "8.7",
    )  # fmt: skip
    assert "trtexec" in found.problems[0]


def test_without_a_gpu_the_probe_says_so(tmp_path, monkeypatch):
    path = tmp_path / "trtexec"
    path.write_text(
        "#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec'\n"
        "echo 'Cuda failure: no CUDA-capable device is detected' >&2\nexit 1\n"
    )
    path.chmod(0o755)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(probe, "find_trtexec", lambda: str(path))
    found = probe.probe()
    assert (found.version, found.problems) == ("10.3.0", (f"{path} finds no NVIDIA GPU",))
    with pytest.raises(UnavailableError, match="finds no NVIDIA GPU"):
        TrtexecSession(str(path), save(tmp_path / "m.onnx"), SessionOptions())
    path.write_text("#!/bin/sh\nexit 127\n")
    assert probe.probe().version is None
