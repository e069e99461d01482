"""The commands with TFLite: bundles in NHWC, precisions, plain files."""

import json
import shutil

import onnx
import pytest

from edgeq.bundle.read import open_bundle

from .conftest import make_data, make_detector

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Source, data set and an INT8 bundle of it; copy the bundle before writing into it."""
    from edgeq.cli.main import main

    folder = tmp_path_factory.mktemp("tflite")
    onnx.save(make_detector(), folder / "tiny.onnx")
    data = make_data(folder / "set")
    code = main(
        [
            "quantize", str(folder / "tiny.onnx"), "--target", "raspberry-pi-5", "--calib", str(data),
            "-o", str(folder / "bundle"), "--skip-fit-check", "--no-cache", "--quiet",
        ]
    )  # fmt: skip
    assert code == 0
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made / "bundle", tmp_path / "bundle")


def test_bundle_describes_the_artifacts_own_input(made):
    manifest = open_bundle(made / "bundle").manifest
    assert manifest.artifact == "model.tflite"
    assert manifest.input.layout.value == "nhwc"
    assert manifest.plan["precision"] == "int8"
    roles = {name: entry.role.value for name, entry in manifest.files.items()}
    assert roles["model.qdq.onnx"] == "qdq"
    assert roles["reference/float.onnx"] == roles["reference/float.tflite"] == "reference"
    report = open_bundle(made / "bundle").report("audit")
    assert {layer["name"] for layer in report["layers"] if layer["op"] == "Conv"} == {
        "stem", "down", "depth", "predict",
    }  # fmt: skip
    assert report["int8_compute_count"] >= 2


def test_evaluate_bench_and_predict_work_in_both_layouts(bundle, made, edgeq):
    data = made / "set" / "data.yaml"
    accuracy = edgeq("evaluate", bundle, "--data", data, "--json").json
    assert accuracy["image_count"] == 8
    assert accuracy["sessions"]["int8"]["delegate"] == "XNNPACK"
    assert accuracy["sessions"]["float"]["runtime"] == "onnxruntime"
    quick = ("--duration", "200ms", "--min-runs", 5, "--no-memory", "--no-save", "--json")
    latency = edgeq("bench", bundle, *quick).json
    assert [entry["details"]["runtime"] for entry in latency["contestants"]] == ["tflite", "tflite"]
    other = edgeq("bench", bundle, "--against", made / "tiny.onnx", *quick).json
    assert other["contestants"][0]["details"]["runtime"] == "onnxruntime"
    image = next((made / "set" / "images" / "val").iterdir())
    assert edgeq("predict", bundle, image, "--json").code == 0


def test_parity_of_a_device_shows_the_int8_tensors(bundle, made, edgeq, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEQ_DEVICE_FOLDER", str(tmp_path / "device"))
    data = made / "set" / "data.yaml"
    report = edgeq("evaluate", bundle, "--data", data, "--on", "local", "--json").json
    told = report["parity"]["tensors"]
    assert told["int8_tensor_count"] >= 1
    assert told["equal_int8_count"] == told["equal_pixels_count"] == told["image_count"] == 8
    assert told["arises_in"] is None
    float_file = bundle / "reference" / "float.tflite"
    flags = ("--data", data, "--on", "local", "--json")
    told = edgeq("evaluate", float_file, *flags).json["parity"]["tensors"]
    assert told["int8_tensor_count"] == 0


def test_an_integer_rival_brings_its_float_tail_and_tflite_tells_no_times(
    bundle, made, edgeq, tmp_path, monkeypatch
):
    monkeypatch.setenv("EDGEQ_DEVICE_FOLDER", str(tmp_path / "device"))
    integer = tmp_path / "integer"
    result = edgeq(
        "quantize", made / "tiny.onnx", "--target", "raspberry-pi-5", "--calib", made / "set" / "data.yaml",
        "--io", "int8", "-o", integer, "--skip-fit-check",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert (integer / "model.tail.tflite").is_file()
    quick = ("--on", "local", "--duration", "100ms", "--min-runs", 3, "--no-memory", "--no-save", "--json")
    rival = edgeq("bench", bundle, "--against", integer, *quick)
    assert rival.code == 0, rival.err
    assert rival.json["contestants"][0]["details"]["tail"] == "model.tail.tflite, float, reference kernels"
    refused = edgeq("bench", bundle, "--per-layer", *quick)
    assert refused.code == 4
    assert "tells no times of layers" in refused.json["error"]
    assert "--per-layer" in refused.json["fix"]


def test_a_plain_file_is_judged_as_its_bundle_is(bundle, made, edgeq):
    data = made / "set" / "data.yaml"
    paired = edgeq(
        "evaluate", bundle / "model.tflite", "--float", made / "tiny.onnx", "--data", data, "--json"
    ).json
    assert paired["drop"] == edgeq("evaluate", bundle, "--data", data, "--json").json["drop"]
    alone = edgeq("evaluate", bundle / "model.tflite", "--data", data, "--json").json
    assert alone["models"][0]["map50_95"] == paired["models"][1]["map50_95"]
    gate = edgeq("gate", bundle / "model.tflite", "--data", data, "--min-map", 0.99, "--json")
    assert gate.code == 3


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic"])
def test_precisions_without_calibration(precision, made, tmp_path, edgeq):
    out = tmp_path / "out"
    result = edgeq(
        "quantize", made / "tiny.onnx", "--target", "raspberry-pi-4", "--precision", precision, "-o", out,
        "--eval", made / "set" / "data.yaml", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["precision"] == precision
    assert result.json["quantization"] is None
    assert result.json["calibration_image_count"] == 0
    assert [model["name"] for model in result.json["accuracy"]["models"]] == ["float", precision]
    manifest = open_bundle(out).manifest
    assert manifest.calibration is None
    assert "model.qdq.onnx" not in manifest.files
    assert edgeq("evaluate", out, "--data", made / "set" / "data.yaml", "--no-save", "--json").code == 0


def test_int16x8(made, tmp_path, edgeq):
    result = edgeq(
        "quantize", made / "tiny.onnx", "--target", "x86-tflite", "--precision", "int16x8", "--calib",
        made / "set" / "data.yaml", "-o", tmp_path / "out", "--skip-fit-check", "--no-cache", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    layers = open_bundle(tmp_path / "out").report("audit")["layers"]
    reasons = {layer["reason"] for layer in layers if layer["op"] == "Conv"}
    assert "INT8 weights with INT16 activations" in reasons


def test_integers_only(made, tmp_path, edgeq):
    out, data = tmp_path / "out", made / "set" / "data.yaml"
    result = edgeq(
        "quantize", made / "tiny.onnx", "--target", "arm64-linux", "--io", "int8", "--calib", data, "-o", out,
        "--skip-fit-check", "--no-cache", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["audit"]["int8_compute_count"] == 4
    bundle = open_bundle(out)
    assert bundle.manifest.files["model.tail.tflite"].role.value == "artifact"
    assert "depthwise_equalization = true" in (out / "recipe.toml").read_text()
    report = edgeq("evaluate", out, "--data", data, "--no-save", "--json").json
    session = report["sessions"]["int8"]
    assert session["input_dtype"] == session["output_dtype"] == "int8"
    assert session["tail"].startswith("model.tail.tflite")
    assert abs(report["drop"]["drop_points"]) < 5
    alone = tmp_path / "alone.tflite"
    shutil.copy(out / "model.tflite", alone)
    refused = edgeq("evaluate", alone, "--data", data)
    assert refused.code == 2
    assert "put model.tail.tflite beside it" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "x86-onnxruntime", "--precision", "float16"), "has no precision 'float16'"),
        (("--target", "x86-onnxruntime", "--io", "int8", "--calib", "."), "no integer inputs and outputs"),
        (("--target", "raspberry-pi-5", "--io", "int9", "--calib", "."), "neither float nor int8"),
        (("--target", "raspberry-pi-5", "--io", "int8", "--precision", "dynamic"), "--io int8 goes with"),
        (
            (
                "--target",
                "raspberry-pi-5",
            ),
            "takes calibration images",
        ),
        (("--target", "raspberry-pi-5", "--precision", "int4"), "is none of int8, int16x8"),
        (("--target", "raspberry-pi-5", "--precision", "float32", "--range", "mse"), "have no effect"),
        (("--target", "raspberry-pi-5", "--precision", "float32", "--max-map-drop", "1"), "labelled images"),
    ],
)
def test_what_cannot_be_is_refused_before_work_starts(arguments, message, made, tmp_path, edgeq):
    result = edgeq("quantize", made / "tiny.onnx", "-o", tmp_path / "out", *arguments)
    assert result.code == 2
    assert message in " ".join(result.err.split())
    assert not (tmp_path / "out").exists()


def test_class_names_of_the_data_set_serve_a_model_without(tmp_path, edgeq):
    model = make_detector(classes=("a", "b", "c"), size=64)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "source.onnx")
    (tmp_path / "source.edgeq.toml").write_text('family = "yolov8"\nclass_names = ["a", "b", "c"]\n')
    out = tmp_path / "out"
    made = edgeq(
        "quantize", tmp_path / "source.onnx", "--target", "x86-tflite", "--precision", "float32", "-o", out
    )
    assert made.code == 0, made.err
    data = make_data(tmp_path / "set", names=("a", "b", "c"))
    arguments = (
        "evaluate",
        out / "model.tflite",
        "--data",
        data,
        "--per-class",
        "--head",
        "yolov8",
        "--json",
    )
    report = edgeq(*arguments).json
    assert [entry["name"] for entry in report["models"][0]["per_class"]] == ["a", "b", "c"]


def test_boxes_in_0_to_1_are_noticed(made, tmp_path, edgeq):
    """As exporters to TFLite give them: the same metric as the model in pixels."""
    model = make_detector()
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * 0 + 1, "scale"))
    onnx.save(model, tmp_path / "unit.onnx")
    out = tmp_path / "out"
    edgeq("quantize", tmp_path / "unit.onnx", "--target", "x86-tflite", "--precision", "float32", "-o", out)
    data = made / "set" / "data.yaml"
    result = edgeq("evaluate", out / "model.tflite", "--float", made / "tiny.onnx", "--data", data, "--json")
    assert result.code == 0, result.err
    assert "boxes in 0..1" in result.err
    first, second = result.json["models"]
    assert first["map50_95"] == pytest.approx(second["map50_95"], abs=1e-6)


def test_the_gate_refuses_a_bad_file_from_the_wild(shared_data, edgeq):
    result = edgeq(
        "gate", shared_data / "models/yolo11n_coco_640_pertensor_int8.tflite", "--data",
        shared_data / "coco-mini/data.yaml", "--images", 12, "--min-map", 0.35, "--json",
    )  # fmt: skip
    assert result.code == 3, result.err
    line = result.json["lines"][0]
    assert line["verdict"] == "fail"
    assert line["measured"] < 0.35
    assert "results are not defined" in result.err


def test_targets_tell_their_hardware(edgeq):
    listed = {target["name"]: target for target in json.loads(edgeq("targets", "--json").out)["targets"]}
    assert listed["raspberry-pi-zero-2-w"]["memory_mb"] == 512
    assert listed["raspberry-pi-5"]["wheels"]["platforms"] == ["manylinux_2_27_aarch64"]
    assert listed["android-arm64"]["wheels"] is None
    assert "4 cores" in edgeq("targets", "raspberry-pi-5").out


@pytest.mark.parametrize("on", [(), ("--on", "local")], ids=["here", "agent"])
def test_xnnpack_is_switched_off_and_recorded(bundle, edgeq, on):
    quick = ("--duration", "200ms", "--min-runs", 5, "--no-memory", "--no-save", "--json")
    for option, delegate in (("xnnpack=on", "XNNPACK"), ("xnnpack=off", "none")):
        latency = edgeq("bench", bundle, "--runtime-option", option, *quick, *on).json
        assert {entry["details"]["delegate"] for entry in latency["contestants"]} == {delegate}


def test_evaluate_without_xnnpack_says_so(bundle, made, edgeq):
    data = made / "set" / "data.yaml"
    off = ("--runtime-option", "xnnpack=off")
    report = edgeq("evaluate", bundle, *off, "--data", data, "--no-save", "--json").json
    assert report["sessions"]["int8"]["delegate"] == "none"


def test_xnnpack_of_another_runtime_is_an_error(made, edgeq):
    result = edgeq("bench", made / "tiny.onnx", "--runtime-option", "xnnpack=off")
    assert result.code == 2
    assert "no option 'xnnpack'" in result.err
