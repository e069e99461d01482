"""What the linter says, shown by a build with TensorRT-RTX; skipped where its wheels are missing."""

import json
import sys

import onnx
import pytest

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import LayerPrecision, SessionOptions
from edgeq.runtimes.tensorrt import RUNTIME, conformance
from edgeq.runtimes.tensorrt.check import check
from edgeq.runtimes.tensorrt.findings import Severity
from edgeq.runtimes.tensorrt.lint import lint

from .broken import BROKEN
from .nets import clean


def broken(severity):
    return {
        f"{rule}-{make.__name__}": make
        for rule, makes in BROKEN.items()
        for make in makes
        if any(entry.rule == rule and entry.severity is severity for entry in lint(make()))
    }


SILENT = {
    **broken(Severity.SILENT_FLOAT),
    # A note, since only TensorRT-RTX is known to do it.
    "transposed-convolution-deconvolution": BROKEN["transposed-convolution"][0],
}
HARD = broken(Severity.ERROR)
TAKEN = {
    "opset-old_opset": "a scale per tensor, which is what opset 11 has; a scale per channel it cannot say",
    "foreign-op-microsoft_op": "its name is a standard op's",
    "quantised-dtype-no_zero_point_means_uint8": "it reads int8 where ONNX says uint8: other numbers",
    "scale-value-infinite_scale": "what it computes is no number",
}
"""Hard rules' models that TensorRT-RTX 1.7 builds, and why they are errors all the same."""
CRASHED = "scale-constant-dynamic_quantisation"


@pytest.fixture
def rtx():
    if not conformance.check_available():
        pytest.skip(f"TensorRT-RTX is not installed: {conformance.INSTALL}")


@pytest.fixture
def saved(tmp_path):
    def save(model):
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return save


def options(capability="8.7"):
    return SessionOptions(compute_capability=capability)


@pytest.mark.usefixtures("rtx")
def test_the_clean_model_is_int8(saved):
    report = check(saved(clean()), options=options())
    assert [layer.precision for layer in report.layers] == [LayerPrecision.INT8] * 2
    assert report.details["compute_capability"] == "8.6 for 8.7"
    assert "conformance" in report.details["verified"]
    assert "no latency" in report.details["verified"]
    assert report.findings == ()


@pytest.fixture(scope="module")
def silent_layers(tmp_path_factory):
    """Layers of one engine of all models that break a silent rule and of the clean one, by model."""
    if not conformance.check_available():
        pytest.skip(f"TensorRT-RTX is not installed: {conformance.INSTALL}")
    joined = None
    for name, make in {**SILENT, "clean": clean}.items():
        model = onnx.compose.add_prefix(make(), f"{name}/")
        if joined is None:
            joined = model
            continue
        for part in ("node", "input", "output", "initializer"):
            getattr(joined.graph, part).extend(getattr(model.graph, part))
    path = tmp_path_factory.mktemp("silent") / "all.onnx"
    onnx.save(joined, path)
    report = check(path, options=options())
    return {
        name: [layer for layer in report.compute_layers if layer.name.startswith(f"{name}/")]
        for name in (*SILENT, "clean")
    }


@pytest.mark.parametrize("name", SILENT)
def test_what_breaks_a_silent_rule_builds_and_runs_in_float(name, silent_layers):
    layers = silent_layers[name]
    assert [layer.precision for layer in layers] == [LayerPrecision.FLOAT]
    assert layers[0].kernel not in ("", "not built")
    assert layers[0].reason


def test_what_breaks_none_is_int8_in_the_same_engine(silent_layers):
    assert [layer.precision for layer in silent_layers["clean"]] == [LayerPrecision.INT8] * 2


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", sorted({*HARD} - {CRASHED}))
def test_what_breaks_a_hard_rule_is_refused(name, saved):
    built = conformance.conformance(saved(HARD[name]()), "8.7")
    if name in TAKEN:
        assert built.layers, f"it is refused by now: {TAKEN[name]}"
        return
    assert built.layers == ()
    assert built.refusals
    assert built.refusals[0].message


@pytest.mark.usefixtures("rtx")
def test_a_native_crash_is_an_error_not_the_end(saved):
    # A computed scale crashed TensorRT-RTX 1.7.1 (SIGSEGV); a later one may refuse or take it.
    path = saved(HARD[CRASHED]())
    try:
        conformance.conformance(path, "8.7")
    except ModelError as error:
        assert "crashed" in error.message


@pytest.mark.usefixtures("rtx")
def test_a_build_that_takes_too_long_is_ended(saved):
    with pytest.raises(ModelError, match=r"within 0\.01 s"):
        conformance.conformance(saved(clean()), "8.7", timeout_s=0.01)


def test_what_the_rules_refuse_is_not_built(saved, monkeypatch):
    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.conformance", lambda *_: pytest.fail("it was built"))
    report = check(saved(BROKEN["scale-constant"][0]()), options=options())
    assert report.int8_compute_count == 0
    assert report.layers[0].precision is LayerPrecision.OTHER
    assert report.findings[0].severity == "error"


def test_without_the_wheels_the_rules_alone_speak(saved, monkeypatch):
    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.check_available", lambda: False)
    report = check(saved(BROKEN["weight-axis"][0]()), options=options())
    assert [layer.precision for layer in report.layers] == [LayerPrecision.FLOAT]
    assert report.layers[0].kernel == "not built"
    assert "nothing was built" in report.details["verified"]
    assert conformance.INSTALL in report.details["verified"]


def test_nothing_here_tells_of_the_dla(saved):
    with pytest.raises(UnavailableError, match="only a device"):
        check(saved(clean()), options=SessionOptions(dla_core=0))


def test_a_check_that_crashes_leaves_the_rules(saved, monkeypatch):
    def crash(*_):
        raise ModelError("TensorRT-RTX 1.7 crashed on model.onnx (SIGSEGV)")

    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.check_available", lambda: True)
    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.conformance", crash)
    report = check(saved(clean()), options=options())
    assert report.int8_compute_count == 2
    assert "rules alone: TensorRT-RTX 1.7 crashed" in report.details["verified"]


def test_a_refusal_without_a_rule_is_a_finding(saved, monkeypatch):
    built = conformance.Conformance("1.7", "8.6", "8.7", (), (conformance.Refusal("no such op", "y"),))
    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.check_available", lambda: True)
    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.conformance", lambda *_: built)
    report = check(saved(clean()), options=options())
    assert report.int8_compute_count == 0
    assert (report.findings[0].rule, report.findings[0].node) == ("refused", "y")


def test_reasons_of_the_plan_go_before_those_of_the_rules(saved, monkeypatch):
    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.check_available", lambda: False)
    report = check(saved(BROKEN["one-side"][0]()), options=options(), reasons={"y": "rule 'y'"})
    assert report.layers[0].reason == "rule 'y'"


def test_a_subprocess_without_the_library_is_unavailable(saved, monkeypatch):
    monkeypatch.setattr(conformance, "check_available", lambda: True)
    monkeypatch.setattr(conformance.sys, "executable", sys.executable)
    script = "import sys; sys.stderr.write('libcuda.so.1: not found'); sys.exit(9)"
    fake_command(monkeypatch, script)
    with pytest.raises(UnavailableError, match=r"libcuda\.so\.1: not found"):
        conformance.conformance(saved(clean()), "8.7")


def test_a_subprocess_that_dies_is_named(saved, monkeypatch):
    monkeypatch.setattr(conformance, "check_available", lambda: True)
    fake_command(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ModelError, match="SIGSEGV"):
        conformance.conformance(saved(clean()), "8.7")


def test_lines_that_are_not_ours_are_passed_over():
    line = json.dumps({"layer": "Name: a, LayerType: gemm, Inputs: [], Outputs: [], TacticName: t"})
    told = [json.dumps(entry) for entry in ({"version": "1.7"}, [1], {"error": "e  e", "node": "n"})]
    text = "\n".join(["noise", *told, line])
    version, layers, refusals = conformance._read(text)
    assert (version, len(layers), refusals[0].message) == ("1.7", 1, "e e")


@pytest.mark.parametrize(
    ("wanted", "built"), [("8.6", "8.6"), ("8.7", "8.6"), ("11.0", "12.0"), ("7.5", "8.6")]
)
def test_stand_ins(wanted, built):
    assert conformance.stand_in(wanted) == built


def test_no_stand_in_for_what_is_too_far():
    with pytest.raises(UnavailableError, match=r"5\.3"):
        conformance.stand_in("5.3")


def test_the_runtime_of_a_machine_without_tensorrt(monkeypatch, saved):
    monkeypatch.setattr(type(RUNTIME), "runs_here", lambda self: False)
    monkeypatch.setattr("edgeq.runtimes.tensorrt.check.check_available", lambda: False)
    assert RUNTIME.audit(saved(clean()), options=options()).int8_compute_count == 2


def fake_command(monkeypatch, script):
    real = conformance.subprocess.run

    def run(command, **options):
        return real([sys.executable, "-c", script], **options)

    monkeypatch.setattr(conformance.subprocess, "run", run)
