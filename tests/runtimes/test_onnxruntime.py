"""Session, audit and probe of ONNX Runtime on small models made here."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import InputError, ModelError, UnavailableError
from edgeq.runtimes import load_runtime, runtime_for, runtime_names
from edgeq.runtimes.base import LayerPrecision, LowerOptions, SessionOptions
from edgeq.runtimes.onnxruntime.lower import lower
from edgeq.runtimes.onnxruntime.probe import probe
from edgeq.targets import load_target

from .contract import RuntimeContract

ROOT = Path(__file__).parents[2]
OPTIONS = SessionOptions()


class _Graph:
    """Nodes and constants of a QDQ graph, added one after the other."""

    def __init__(self):
        self.nodes, self.tensors = [], []
        self.rng = np.random.default_rng(0)

    def constant(self, name, array):
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def qdq(self, name, scale=0.05, zero=128):
        scales = [self.constant(f"{name}_s", np.float32(scale)), self.constant(f"{name}_z", np.uint8(zero))]
        quantised = self.node("QuantizeLinear", [name, *scales], f"{name}_q")
        return self.node("DequantizeLinear", [quantised, *scales], f"{name}_dq")

    def conv(self, source, output, *, channels, quantised):
        shape = (channels, 3 if source.startswith("x") else 4, 3, 3)
        weight = self.rng.normal(0, 0.1, shape).astype(np.float32)
        if quantised:
            integer = self.constant(
                f"{output}_wq", np.clip(np.rint(weight / 0.01), -127, 127).astype(np.int8)
            )
            scales = [
                self.constant(f"{output}_ws", np.full(channels, 0.01, np.float32)),
                self.constant(f"{output}_wz", np.zeros(channels, np.int8)),
            ]
            name = self.node("DequantizeLinear", [integer, *scales], f"{output}_w", axis=0)
        else:
            name = self.constant(f"{output}_w", weight)
        return self.node("Conv", [source, name], output, pads=[1] * 4, kernel_shape=[3, 3])

    def save(self, path, output):
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])
        last = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "g", [image], [last], self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.save(model, path)
        return path


@pytest.fixture
def qdq_model(tmp_path):
    """``first`` and ``second`` can be integer, ``head`` is float because nothing around it is quantised."""
    g = _Graph()
    first = g.conv(g.qdq("x"), "first", channels=4, quantised=True)
    second = g.conv(g.qdq(g.node("Relu", [first], "act"), zero=0), "second", channels=4, quantised=True)
    middle = g.node("Softmax", [g.qdq(second)], "middle", axis=1)
    g.conv(middle, "head", channels=4, quantised=False)
    return g.save(tmp_path / "q.onnx", "head")


@pytest.fixture
def runtime():
    return load_runtime("onnxruntime")


# Session


def test_session_infers_by_name(qdq_model, runtime):
    session = runtime.open_session(qdq_model, options=SessionOptions(threads=2))
    assert session.inputs[0].shape == (1, 3, 16, 16)
    assert session.inputs[0].dtype == "float32"
    outputs = session.infer(np.zeros((1, 3, 16, 16), np.float32))
    assert list(outputs) == ["head"]
    assert outputs["head"].shape == (1, 4, 16, 16)
    assert session.details["threads"] == "2"
    assert {"runtime", "version", "provider", "float_precision"} <= set(session.details)


def test_session_says_what_is_wrong(tmp_path, qdq_model, runtime):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(qdq_model.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"cannot load .*bad\.onnx"):
        runtime.open_session(bad, options=OPTIONS)
    with pytest.raises(ModelError, match="there is no model file"):
        runtime.open_session(tmp_path / "none.onnx", options=OPTIONS)
    session = runtime.open_session(qdq_model, options=OPTIONS)
    with pytest.raises(ModelError, match="inference failed"):
        session.infer(np.zeros((1, 3, 8, 8), np.float32))


def test_session_factory_is_the_session(runtime, qdq_model):
    from edgeq.benchmark.memory import peak_memory_mb

    assert peak_memory_mb(qdq_model, runtime.session_factory) > 5


# Audit


def layers_of(report):
    return {layer.name: layer for layer in report.compute_layers}


def test_audit_tells_integer_from_float(qdq_model, runtime):
    report = runtime.audit(qdq_model, options=OPTIONS, reasons={"n_head": "kept in float for accuracy"})
    layers = layers_of(report)
    assert set(layers) == {"n_first", "n_second", "n_head"}
    assert layers["n_first"].precision is LayerPrecision.INT8
    assert layers["n_first"].kernel == "QLinearConv"
    assert layers["n_head"].precision is LayerPrecision.FLOAT
    assert layers["n_head"].reason == "kept in float for accuracy"
    assert report.int8_compute_count == 2


def test_audit_reasons_come_from_the_graph_without_a_plan(tmp_path, runtime):
    g = _Graph()
    first = g.conv(g.qdq("x"), "first", channels=4, quantised=True)
    second = g.conv(first, "second", channels=4, quantised=True)
    g.qdq(second)
    report = runtime.audit(g.save(tmp_path / "m.onnx", "second_dq"), options=OPTIONS)
    layers = layers_of(report)
    assert layers["n_first"].precision is LayerPrecision.FLOAT
    assert layers["n_first"].reason == "its output is not quantised"
    assert layers["n_second"].reason == "its input is not quantised"


def test_audit_sees_weights_that_the_runtime_rounds_by_itself(tmp_path, runtime):
    g = _Graph()
    first = g.conv(g.qdq("x"), "first", channels=4, quantised=False)
    g.qdq(first)
    layer = layers_of(runtime.audit(g.save(tmp_path / "m.onnx", "first_dq"), options=OPTIONS))["n_first"]
    if layer.precision is LayerPrecision.INT8:
        assert "ONNX Runtime rounded its weight itself" in layer.reason
    else:  # before the pass WeightBiasQuantization
        assert layer.reason == "its weight is not quantised"


def test_audit_without_onnx_lists_the_same_precisions(qdq_model, runtime, monkeypatch):
    from edgeq.runtimes.onnxruntime import audit as module

    with_onnx = runtime.audit(qdq_model, options=OPTIONS)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == "onnx" else find_spec(name)
    )
    without = runtime.audit(qdq_model, options=OPTIONS)
    assert "profile" in without.details["told_by"]
    assert without.int8_compute_count == with_onnx.int8_compute_count
    assert len(without.compute_layers) == len(with_onnx.compute_layers)


def test_audit_of_no_model(tmp_path, runtime):
    path = tmp_path / "no.onnx"
    path.write_text("no")
    with pytest.raises(ModelError):
        runtime.audit(path, options=OPTIONS)


# Probe, scheme, lower, loading


def cpuinfo(tmp_path, flags):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    return path


def test_probe_warns_without_vnni(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    report = probe(cpuinfo(tmp_path, "sse2 avx2"))
    assert report.features["vnni"] == "no"
    assert any("no VNNI" in text for text in report.problems)
    good = probe(cpuinfo(tmp_path, "avx2 avx512f avx512_vnni"))
    assert good.features["vnni"] == "yes"
    assert good.problems == ()
    assert good.version


def test_probe_warns_on_arm_without_dot_product(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    path = tmp_path / "cpuinfo"
    path.write_text("Features\t: fp asimd\n")
    assert any("dot-product" in text for text in probe(path).problems)
    path.write_text("Features\t: fp asimd asimddp\n")
    assert probe(path).problems == ()


def test_probe_claims_nothing_where_the_system_does_not_tell(tmp_path):
    report = probe(tmp_path / "none")
    assert "vnni" not in report.features
    assert report.problems == ()


def test_scheme_follows_the_target(runtime):
    scheme = runtime.scheme(load_target("x86-onnxruntime"))
    assert scheme.activation_dtype.value == "uint8"
    assert runtime.scheme(load_target("arm64-onnxruntime")).activation_dtype.value == "int8"


def test_lower_writes_the_model_itself(tmp_path):
    artifact = lower(b"bytes", tmp_path, LowerOptions())
    assert artifact.files == (artifact.path,) == (tmp_path / "model.qdq.onnx",)
    assert artifact.path.read_bytes() == b"bytes"


def test_runtimes_by_name_and_by_file(tmp_path):
    assert "onnxruntime" in runtime_names()
    assert runtime_for(Path("a.onnx")).name == "onnxruntime"
    with pytest.raises(InputError, match="no runtime 'tensorflow'"):
        load_runtime("tensorflow")
    with pytest.raises(InputError, match="TensorRT engine"):
        runtime_for(Path("a.engine"))
    with pytest.raises(InputError, match="neither a bundle nor a model"):
        runtime_for(Path("a.txt"))


def test_a_missing_wheel_is_said_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError) as caught:
        load_runtime("onnxruntime")
    assert caught.value.fix == "pip install onnxruntime"


def test_the_runtime_loads_nothing_until_it_is_used():
    code = (
        "import sys; from edgeq.runtimes import load_runtime; load_runtime('onnxruntime')\n"
        "assert not {'onnxruntime', 'onnx', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_session_needs_numpy_and_onnxruntime_only():
    code = (
        "import sys; import edgeq.runtimes.onnxruntime.session, edgeq.runtimes.onnxruntime.probe\n"
        "import edgeq.runtimes.onnxruntime.audit\n"
        "assert not {'onnx', 'pydantic', 'cv2', 'rich'} & set(sys.modules), set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


class TestOnnxRuntimeContract(RuntimeContract):
    name = "onnxruntime"
    refuses_unknown_ops = False
