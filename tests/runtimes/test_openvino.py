"""Scheme, lowering, session, audit and probe of OpenVINO on small models made here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.benchmark.throughput import measure_throughput
from edgeq.errors import ModelError, OutputError
from edgeq.runtimes import load_runtime, runtime_for
from edgeq.runtimes.base import LayerPrecision, LowerOptions, SessionOptions
from edgeq.runtimes.openvino import probe as probe_module
from edgeq.runtimes.openvino.probe import default_float, probe
from edgeq.runtimes.optional import ConcurrentSession, ProfiledSession
from edgeq.targets import load_target

from .contract import RuntimeContract

ROOT = Path(__file__).parents[2]
OPTIONS = SessionOptions()
SIZE = 16
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)


def serialised(*, float_layer="", per_channel=False):
    """Conv, SiLU, depthwise conv, SiLU, head: pairs on inputs only; one layer may be left in float."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def pair(name, channels):
        shape = (channels,) if channels else ()
        axis = {"axis": 1} if channels else {}
        grid = [
            constant(f"{name}_s", np.full(shape, 0.03, np.float32)),
            constant(f"{name}_z", np.full(shape, 100, np.uint8)),
        ]
        nodes.append(helper.make_node("QuantizeLinear", [name, *grid], [f"{name}_q"], **axis))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_dq"], **axis))
        return f"{name}_dq"

    def conv(source, name, out, inside, group=1):
        weight = rng.normal(0, 0.3, (out, inside, 3, 3)).astype(np.float32)
        if name == float_layer:
            made = constant(f"{name}_w", weight)
        else:
            source = pair(source, group if per_channel and group > 1 else 0)
            scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
            grid = [constant(f"{name}_ws", scale), constant(f"{name}_wz", np.zeros(out, np.int8))]
            integer = constant(f"{name}_wq", np.rint(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8))
            nodes.append(helper.make_node("DequantizeLinear", [integer, *grid], [f"{name}_w"], axis=0))
            made = f"{name}_w"
        bias = constant(f"{name}_b", rng.normal(0, 0.1, out).astype(np.float32))
        nodes.append(
            helper.make_node(
                "Conv",
                [source, made, bias],
                [f"{name}_c"],
                name,
                kernel_shape=[3, 3],
                pads=[1] * 4,
                group=group,
            )
        )
        return f"{name}_c"

    def silu(source, name):
        nodes.append(helper.make_node("Sigmoid", [source], [f"{name}_g"], f"{name}_sigmoid"))
        nodes.append(helper.make_node("Mul", [source, f"{name}_g"], [name], f"{name}_mul"))
        return name

    x = silu(conv("images", "stem", 16, 3), "a")
    x = silu(conv(x, "deep", 16, 1, group=16), "b")
    last = conv(x, "head", 4, 16)
    nodes.append(helper.make_node("Identity", [last], ["scores"], "out"))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4, SIZE, SIZE])
    graph = helper.make_graph(nodes, "g", [image], [scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", "{0: 'nut', 1: 'bolt'}"
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def picture(seed=0):
    return np.random.default_rng(seed).normal(0, 1, (1, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def runtime():
    return load_runtime("openvino", installed=False)


@pytest.fixture
def lowered(tmp_path, runtime):
    def make(**options):
        return runtime.lower(serialised(**options), tmp_path, options=LowerOptions())

    return make


def outputs_in_ort(model):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": picture()})[0]


# Lowering


@needs_openvino
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_artifact_computes_what_the_qdq_model_says(runtime, lowered, per_channel):
    artifact = lowered(per_channel=per_channel)
    session = runtime.open_session(artifact.path, options=OPTIONS)
    found = session.infer(picture())["scores"]
    expected = outputs_in_ort(serialised(per_channel=per_channel))
    # A value that lies between two levels may fall to either side; the signal is 30 times as large.
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean()


@needs_openvino
def test_the_artifact_is_that_of_convert_model(tmp_path, runtime, lowered, monkeypatch):
    """The transformations called by themselves give what the public converter gives."""
    monkeypatch.setenv("CI", "true")  # its statistics stay off
    ov = pytest.importorskip("openvino")
    (tmp_path / "m.onnx").write_bytes(serialised(per_channel=True))
    ov.save_model(
        ov.convert_model(str(tmp_path / "m.onnx")), str(tmp_path / "by.xml"), compress_to_fp16=False
    )
    sessions = [
        runtime.open_session(path, options=OPTIONS)
        for path in (lowered(per_channel=True).path, tmp_path / "by.xml")
    ]
    first, second = (session.infer(picture())["scores"] for session in sessions)
    assert np.array_equal(first, second)


@needs_openvino
def test_the_artifact_keeps_names_shapes_and_metadata(runtime, lowered):
    artifact = lowered()
    assert [file.suffix for file in artifact.files] == [".xml", ".bin"]
    assert sorted(path.name for path in artifact.path.parent.iterdir()) == ["model.bin", "model.xml"]
    session = runtime.open_session(artifact.path, options=OPTIONS)
    assert [(i.name, i.shape, i.dtype) for i in session.inputs] == [("images", (1, 3, SIZE, SIZE), "float32")]
    assert [(o.name, o.shape) for o in session.outputs] == [("scores", (1, 4, SIZE, SIZE))]
    assert session.metadata == {"names": "{0: 'nut', 1: 'bolt'}"}


@needs_openvino
def test_float_weights_in_half_the_size(tmp_path, runtime):
    float_model = without_pairs(serialised())
    sizes = [
        runtime.lower(float_model, tmp_path, options=LowerOptions(f"m{half}", float16_weights=half))
        .files[1]
        .stat()
        .st_size
        for half in (False, True)
    ]
    assert sizes[0] - sizes[1] >= 2 * 4 * 16 * 9


@needs_openvino
def test_what_is_no_model_is_refused(tmp_path, runtime):
    with pytest.raises(ModelError, match="cannot convert"):
        runtime.lower(b"not onnx", tmp_path, options=LowerOptions())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError):
        runtime.lower(serialised(), tmp_path / "none", options=LowerOptions())


# Session


@needs_openvino
def test_precision_is_set_on_purpose_and_recorded(runtime, lowered):
    path = lowered().path
    forced = runtime.open_session(path, options=SessionOptions(threads=2)).details
    assert (forced["float_precision"], forced["threads"], forced["streams"]) == ("float32", "2", "1")
    default = runtime.open_session(path, options=SessionOptions(default_float=True)).details
    assert default["float_precision"] == runtime.default_float
    assert {"runtime", "version", "device", "core_pinning", "performance_hint"} <= set(forced)


@needs_openvino
def test_outputs_are_not_overwritten_by_the_next_inference(runtime, lowered):
    session = runtime.open_session(lowered().path, options=OPTIONS)
    first = session.infer(picture(0))["scores"]
    kept = first.copy()
    session.infer(picture(1))
    assert np.array_equal(first, kept)


@needs_openvino
def test_session_says_what_is_wrong(tmp_path, runtime, lowered):
    path = lowered().path
    with pytest.raises(ModelError, match="inference failed"):
        runtime.open_session(path, options=OPTIONS).infer(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(ModelError, match="there is no model file"):
        runtime.open_session(tmp_path / "none.xml", options=OPTIONS)
    weights = path.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").write_bytes(weights[:100])
    with pytest.raises(ModelError, match="cannot read"):
        runtime.open_session(path, options=OPTIONS)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"there is no model file .*\.bin"):
        runtime.open_session(path, options=OPTIONS)


@needs_openvino
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"no", "does not begin with <net>"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><net name="x">', "document type"),
        (b'<?xml version="1.0"?><net name="x" version="11"><layers', "cannot read"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, runtime, text, message):
    (tmp_path / "m.xml").write_bytes(text)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=message):
        runtime.open_session(tmp_path / "m.xml", options=OPTIONS)


@needs_openvino
def test_session_factory_is_the_session(runtime, lowered):
    from edgeq.benchmark.memory import peak_memory_mb

    assert peak_memory_mb(lowered().path, runtime.session_factory) > 5


# Audit and profile


@needs_openvino
def test_audit_tells_integer_from_float(runtime, lowered):
    report = runtime.audit(lowered(float_layer="head", per_channel=True).path, options=OPTIONS)
    layers = {layer.name: layer for layer in report.compute_layers}
    assert set(layers) == {"stem", "deep", "head"}
    assert layers["head"].precision is LayerPrecision.FLOAT
    assert layers["head"].reason == "not quantised in the model"
    assert all(layer.time_ms > 0 for layer in layers.values())
    if default_integer():
        assert layers["stem"].precision is layers["deep"].precision is LayerPrecision.INT8
        assert layers["stem"].kernel.endswith("u8")
        # SiLU and rounding are inside the convolutions: nothing else computes.
        assert {layer.op for layer in report.layers} <= {"Conv", "Reorder", "Subgraph", "FakeQuantize"}


@needs_openvino
def test_audit_gives_the_plan_s_reason(runtime, lowered):
    report = runtime.audit(
        lowered(float_layer="head").path, options=OPTIONS, reasons={"head": "kept in float for accuracy"}
    )
    assert {layer.reason for layer in report.compute_layers if layer.name == "head"} == {
        "kept in float for accuracy"
    }


@needs_openvino
def test_audit_of_a_float_model(tmp_path, runtime):
    artifact = runtime.lower(without_pairs(serialised()), tmp_path, options=LowerOptions())
    report = runtime.audit(artifact.path, options=OPTIONS)
    assert report.int8_compute_count == 0
    assert len(report.compute_layers) == 3


def without_pairs(model):
    """The float model: weights restored, activations' pairs out."""
    model = onnx.load_from_string(model)
    constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    made = {n.output[0]: n for n in model.graph.node}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            maker = made.get(name)
            if maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in made:
                node.input[index] = made[maker.input[0]].input[0]
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            scale = constants[node.input[1]].reshape(-1, 1, 1, 1)
            weight = np.float32(constants[node.input[0]] * scale)
            model.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
    kept = [n for n in model.graph.node if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model.SerializeToString()


def default_integer():
    """Whether this CPU has the instructions; without them OpenVINO may choose other kernels."""
    return probe().features.get("vnni") == "yes"


@needs_openvino
def test_profile_adds_up_to_the_layers(runtime, lowered):
    session = runtime.open_session(lowered().path, options=OPTIONS)
    assert isinstance(session, ProfiledSession)
    layers = session.profile(picture(), runs=3)
    assert {"stem", "deep", "head"} <= {layer.name for layer in layers}
    assert all(layer.time_ms >= 0 and layer.kernel for layer in layers)


@needs_openvino
def test_both_hints_are_recorded_and_give_the_same(runtime, lowered):
    path = lowered().path
    latency = runtime.open_session(path, options=SessionOptions(threads=2))
    throughput = runtime.open_session(path, options=SessionOptions(threads=2, performance_hint="throughput"))
    assert (latency.details["performance_hint"], latency.details["streams"]) == ("latency", "1")
    assert throughput.details["performance_hint"] == "throughput"
    assert np.allclose(latency.infer(picture())["scores"], throughput.infer(picture())["scores"], atol=1e-5)


@needs_openvino
def test_several_inferences_at_once(runtime, lowered):
    options = SessionOptions(threads=2, performance_hint="throughput")
    session = runtime.open_session(lowered().path, options=options)
    assert isinstance(session, ConcurrentSession)
    assert session.in_flight >= int(session.details["streams"])
    found = measure_throughput(session, [picture(0), picture(1)], duration_s=0.05)
    assert found.inferences >= session.in_flight
    with pytest.raises(ModelError, match="inference failed"):
        session.infer_all([np.zeros((1, 3, SIZE + 1, SIZE), np.float32)])


def test_profile_of_onnxruntime(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(serialised(float_layer="head"))
    session = load_runtime("onnxruntime").open_session(path, options=OPTIONS)
    assert isinstance(session, ProfiledSession)
    layers = session.profile(picture(), runs=3)
    assert sum("Conv" in layer.op for layer in layers) == 3
    assert {"float", "uint8"} <= {layer.precision for layer in layers}
    assert sum(layer.time_ms for layer in layers) > 0


# Probe, scheme, loading


def cpuinfo(tmp_path, text):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\n{text}\n")
    return path


def test_probe_warns_without_vnni(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    bad = probe(cpuinfo(tmp_path, "flags : sse2 avx2"))
    assert bad.features["vnni"] == "no"
    assert any("x86-avx2" in text for text in bad.problems)
    good = probe(cpuinfo(tmp_path, "flags : avx2 avx_vnni"))
    assert good.features["vnni"] == "yes"
    assert not any("VNNI" in text for text in good.problems)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : avx512f avx512_vnni", "float32"),
        ("x86_64", "flags : avx512f avx512_vnni avx512_bf16", "bfloat16"),
        ("x86_64", "flags : avx512f amx_bf16 amx_int8", "bfloat16"),
        ("x86_64", "flags : avx2 avx_vnni", "float32"),
        ("aarch64", "Features : fp asimd asimddp asimdhp", "float16"),
        ("aarch64", "Features : fp asimd", "float32"),
        ("riscv64", "", "float32"),
    ],
)
def test_default_float_follows_the_cpu(tmp_path, monkeypatch, machine, flags, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert default_float(cpuinfo(tmp_path, flags)) == expected


def test_probe_compares_glibc_with_the_wheel(monkeypatch):
    def missing():
        from edgeq.errors import UnavailableError

        raise UnavailableError("no", fix="pip")

    monkeypatch.setattr(probe_module, "import_openvino", missing)
    monkeypatch.setattr(probe_module, "wheel_glibc", lambda: (2, 40))
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.31"))
    report = probe()
    assert report.version is None
    assert any("needs glibc 2.40 or newer, this system has 2.31" in text for text in report.problems)


@needs_openvino
def test_probe_names_the_devices():
    report = probe()
    assert "CPU" in report.features["devices"]
    assert report.features["device CPU"]
    assert report.version


def test_scheme_follows_the_target(runtime):
    assert runtime.scheme(load_target("intel-vnni")).weight_bits == 8
    assert runtime.scheme(load_target("x86-avx2")).weight_bits == 7
    scheme = runtime.scheme(load_target("intel-n100"))
    assert scheme.depthwise_channel_grids
    assert not scheme.quantize_bias


@needs_openvino
def test_runtime_by_file():
    assert runtime_for(Path("a.xml")).name == "openvino"


def test_the_runtime_loads_nothing_until_it_is_used():
    code = (
        "import sys; from edgeq.runtimes import load_runtime; r = load_runtime('openvino', installed=False)\n"
        "r.default_float\n"
        "assert not {'openvino', 'onnx', 'numpy.linalg', 'cv2'} & set(sys.modules) - {'numpy.linalg'}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_session_needs_numpy_and_openvino_only():
    code = (
        "import sys; import edgeq.runtimes.openvino.session, edgeq.runtimes.openvino.audit\n"
        "import edgeq.runtimes.openvino.probe\n"
        "assert not {'onnx', 'pydantic', 'cv2', 'rich', 'edgeq.quantize'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


class TestContract(RuntimeContract):
    name = "openvino"
