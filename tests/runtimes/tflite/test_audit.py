"""What the audit says of INT8, INT16, dynamic range and float files, with XNNPACK and without."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from cli.conftest import make_detector

from edgeq.model.source import load
from edgeq.quantize.grid import Affine
from edgeq.quantize.insert import insert_qdq, model_bytes
from edgeq.quantize.plan import TensorPlan
from edgeq.quantize.planner import build_plan
from edgeq.quantize.recipe import Recipe
from edgeq.runtimes import load_runtime
from edgeq.runtimes.base import LayerPrecision, LowerOptions, SessionOptions
from edgeq.runtimes.tflite.probe import probe
from edgeq.types import IntegerType

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
RUNTIME = load_runtime("tflite")
OPTIONS = SessionOptions()


@pytest.fixture
def float_model(tmp_path):
    onnx.save(make_detector(), tmp_path / "source.onnx")
    return load(tmp_path / "source.onnx").onnx_bytes


@pytest.fixture
def audited(float_model, tmp_path):
    """Lower in some way, then audit: layers by name, and the report."""

    def run(model=float_model, *, options=LowerOptions(), session=OPTIONS, reasons=None):  # noqa: B008
        artifact = RUNTIME.lower(model, tmp_path, options=options)
        report = RUNTIME.audit(artifact.path, options=session, reasons=reasons)
        return {layer.name: layer for layer in report.compute_layers}, report

    return run


def quantised(float_model, dtype: IntegerType, *, scale=0.02) -> bytes:
    """The detector on one grid everywhere, but for sigmoids, which have their own."""
    graph = ir.serde.deserialize_model(onnx.load_from_string(float_model))
    scheme = RUNTIME.scheme(_Target(dtype))
    names = [value.name for value in (*graph.graph.inputs, *(o for n in graph.graph for o in n.outputs))]
    grids = {name: TensorPlan(name, Affine(scale, 0, dtype), "test") for name in names}
    for node in graph.graph:
        if node.op_type in scheme.fixed_outputs:
            name = node.outputs[0].name
            grids[name] = TensorPlan(name, scheme.fixed_outputs[node.op_type], "fixed")
    plan = build_plan(graph, scheme, Recipe(), grids, kept_float={}, bias_shifts={})
    return model_bytes(insert_qdq(graph, plan))


class _Target:
    def __init__(self, dtype):
        self.activation_dtype = dtype


def test_int8_inside_xnnpack(float_model, audited):
    layers, report = audited(
        quantised(float_model, IntegerType.INT8), reasons={"predict": "prediction layer"}
    )
    integer = {name for name, layer in layers.items() if layer.precision is LayerPrecision.INT8}
    assert integer == {"stem", "down", "depth"}
    assert {layers[name].kernel for name in integer} == {"XNNPACK CONV_2D", "XNNPACK DEPTHWISE_CONV_2D"}
    assert all(not layers[name].reason for name in integer)
    assert layers["predict"].reason == "prediction layer"
    assert report.remarks == ()
    assert report.details["delegate"] == "XNNPACK"


def test_int8_left_to_tflites_own_kernels(float_model, audited):
    layers, report = audited(quantised(float_model, IntegerType.INT8), session=SessionOptions(xnnpack=False))
    assert report.int8_compute_count == 3
    assert layers["stem"].kernel == "TFLite CONV_2D"
    assert layers["stem"].reason.endswith("XNNPACK is off")
    assert report.details["delegate"] == "none"


def test_int16_activations_are_named(float_model, audited):
    layers, report = audited(quantised(float_model, IntegerType.INT16))
    assert layers["down"].precision is LayerPrecision.OTHER
    assert layers["down"].reason == "INT8 weights with INT16 activations"
    assert layers["down"].kernel.startswith("TFLite")
    assert report.int8_compute_count == 0


def test_dynamic_range_is_not_int8(audited):
    layers, report = audited(options=LowerOptions(dynamic_range=True))
    dynamic = [layer for layer in layers.values() if layer.reason.startswith("dynamic range")]
    assert dynamic
    assert {layer.precision for layer in dynamic} == {LayerPrecision.OTHER}
    assert report.int8_compute_count == 0
    assert f"{len(dynamic)} of 4" in report.remarks[0]


def test_float16_weights_are_float(audited):
    layers, _ = audited(options=LowerOptions(float16_weights=True))
    assert {layer.precision for layer in layers.values()} == {LayerPrecision.FLOAT}
    assert "stored in float16" in layers["down"].reason


def test_the_bad_file_is_told_for_what_it_is(shared_data):
    report = RUNTIME.audit(shared_data / "models/yolo11n_coco_640_pertensor_int8.tflite", options=OPTIONS)
    assert report.int8_compute_count == 0
    dynamic = [layer for layer in report.compute_layers if layer.reason.startswith("dynamic range")]
    assert len(dynamic) == 81
    assert all("one scale for all channels" in layer.reason for layer in dynamic)
    text = " ".join(report.remarks)
    assert "81 of 219" in text
    assert "2 depthwise convolutions" in text
    assert "results are not defined" in text
    assert "81 of 81 INT8 weights have one scale for all channels" in text
    left = {layer.kernel for layer in report.layers if layer.kernel.startswith("TFLite")}
    assert "TFLite RESIZE_NEAREST_NEIGHBOR" in left


def test_int8_agrees_with_the_qdq_model(float_model, audited, tmp_path):
    """The same grid on both sides: one step of it apart at most in what the prediction layer reads."""
    data = quantised(float_model, IntegerType.INT8)
    (tmp_path / "qdq.onnx").write_bytes(data)
    reference = load_runtime("onnxruntime").open_session(tmp_path / "qdq.onnx", options=OPTIONS)
    session = RUNTIME.open_session(
        RUNTIME.lower(data, tmp_path, options=LowerOptions()).path, options=OPTIONS
    )
    x = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    ours = session.infer(x)["output0"]
    theirs = reference.infer(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))["output0"]
    assert np.abs(ours - theirs)[:, 4:].mean() < 0.01


# Probe


def test_probe_of_a_board_without_dot_product(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    path = tmp_path / "cpuinfo"
    path.write_text("Features\t: fp asimd\n")
    assert any("dot-product" in text for text in probe(path).problems)
    path.write_text("Features\t: fp asimd asimddp i8mm\n")
    report = probe(path)
    assert report.features["dot-product"] == report.features["i8mm"] == "yes"
    assert not any("dot-product" in text for text in report.problems)


def test_probe_without_either_wheel(monkeypatch):
    from edgeq.runtimes.tflite import native

    monkeypatch.setattr(native, "_WHEELS", {"ai-edge-litert": "no_such_module_a"})
    report = probe()
    assert report.version is None
    assert "edgeq[tflite]" in report.problems[0]


def test_probe_says_that_the_old_wheel_is_old(monkeypatch):
    from edgeq.runtimes.tflite import native

    monkeypatch.setattr(native, "_WHEELS", {"tflite-runtime": "ai_edge_litert.interpreter"})
    report = probe()
    assert report.features["package"] == "tflite-runtime"
    assert any("no longer maintained" in text for text in report.problems)
