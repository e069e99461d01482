"""The commands on a bundle and on plain models."""

import json

import onnx
import pytest

from edgeq.bundle.read import open_bundle

from .conftest import make_data, make_detector


def float_model(made_bundle):
    return made_bundle[2]


# evaluate


def test_evaluate_saves_the_paired_drop(bundle, made_bundle, edgeq):
    result = edgeq("evaluate", bundle, "--data", made_bundle[1], "--per-class")
    assert result.code == 0
    assert "not told apart" in result.out or "drop of mAP" in result.out
    report = open_bundle(bundle).report("accuracy")
    assert report["drop"]["image_count"] == 8
    assert [model["name"] for model in report["models"]] == ["float", "int8"]
    assert report["post_process"]["iou"] == 0.65


def test_evaluate_no_save_leaves_the_bundle_as_it_was(bundle, made_bundle, edgeq):
    before = (bundle / "manifest.json").read_bytes()
    assert edgeq("evaluate", bundle, "--data", made_bundle[1], "--no-save", "--images", 3).code == 0
    assert (bundle / "manifest.json").read_bytes() == before


def test_evaluate_records_its_post_processing(bundle, made_bundle, edgeq):
    result = edgeq("evaluate", bundle, "--data", made_bundle[1], "--confidence", 0.3, "--iou", 0.5, "--json")
    assert result.json["post_process"]["confidence"] == 0.3
    assert result.json["post_process"]["iou"] == 0.5


def test_evaluate_leaves_calibration_images_out(bundle, made_bundle, edgeq):
    result = edgeq("evaluate", bundle, "--data", made_bundle[1], "--split", "train")
    assert result.code == 2
    assert "all 20 images" in result.err
    kept = edgeq(
        "evaluate", bundle, "--data", made_bundle[1], "--split", "train", "--allow-overlap", "--json"
    )
    assert kept.json["image_count"] == 20


def test_evaluate_a_plain_model_against_its_float_source(bundle, made_bundle, edgeq):
    model = bundle / "model.qdq.onnx"
    alone = edgeq("evaluate", model, "--data", made_bundle[1], "--json").json
    assert alone["drop"] is None
    paired = edgeq(
        "evaluate", model, "--data", made_bundle[1], "--float", float_model(made_bundle), "--json"
    ).json
    of_bundle = edgeq("evaluate", bundle, "--data", made_bundle[1], "--json").json
    assert paired["drop"] == of_bundle["drop"]


def test_evaluate_needs_labels(bundle, tmp_path, edgeq):
    data = make_data(tmp_path / "plain")
    result = edgeq("evaluate", bundle, "--data", data.parent / "images" / "val")
    assert result.code == 2
    assert "no labels" in result.err


# bench


def test_bench_interleaves_float_and_int8(bundle, made_bundle, edgeq):
    result = edgeq(
        "bench", bundle, "--duration", "300ms", "--min-runs", 12, "--data", made_bundle[1], "--json"
    )
    assert result.code == 0
    report = result.json
    assert [entry["name"] for entry in report["contestants"]] == ["float", "int8"]
    assert len({len(entry["wall_ns"]) for entry in report["contestants"]}) == 1
    assert report["speedups"][0]["baseline"] == "float"
    assert all(entry["peak_memory_mb"] > 5 for entry in report["contestants"])
    stages = [stage["name"] for stage in report["stages"]["stages"]]
    assert stages == ["decode", "pre-process", "inference", "post-process"]
    assert report["contestants"][1]["details"]["threads"] == "1"
    assert open_bundle(bundle).report("latency")["judged"] == "int8"


def test_bench_a_plain_model_alone(bundle, edgeq):
    result = edgeq(
        "bench", bundle / "model.qdq.onnx", "--duration", "100ms", "--min-runs", 5, "--no-memory", "--json"
    )
    assert [entry["name"] for entry in result.json["contestants"]] == ["model.qdq"]
    assert result.json["speedups"] == []


def test_bench_takes_a_hint_only_where_the_runtime_has_one(bundle, edgeq):
    result = edgeq("bench", bundle, "--runtime-option", "hint=throughput")
    assert result.code == 2
    assert "onnxruntime has no option 'hint'" in result.err


def test_bench_for_throughput(tmp_path, made_bundle, edgeq):
    pytest.importorskip("openvino")
    source, data = float_model(made_bundle), made_bundle[1]
    made = edgeq(
        "quantize",
        source,
        "--target",
        "intel-vnni",
        "--calib",
        data,
        "-o",
        tmp_path / "b",
        "--no-cache",
        "--skip-fit-check",
    )
    assert made.code == 0, made.err
    asked = ("bench", tmp_path / "b", "--duration", "200ms", "--min-runs", 5, "--runtime-option")
    assert edgeq(*asked, "hint=speed").code == 2
    assert edgeq(*asked, "hint=throughput", "--on", "local").code == 2
    report = edgeq(*asked, "hint=throughput", "--json").json
    assert {entry["details"]["performance_hint"] for entry in report["contestants"]} == {"throughput"}
    assert report["throughput"].keys() == {entry["name"] for entry in report["contestants"]}
    assert all(found["inferences_per_s"] > 0 for found in report["throughput"].values())


def test_bench_against_another(bundle, made_bundle, edgeq):
    arguments = ("--duration", "100ms", "--min-runs", 5, "--no-memory", "--no-save", "--json")
    result = edgeq("bench", bundle, "--against", float_model(made_bundle), *arguments)
    assert [entry["name"] for entry in result.json["contestants"]] == ["tiny (other)", "int8"]


# audit and explain


def test_audit_gives_the_reason_of_the_plan(bundle, edgeq):
    report = edgeq("audit", bundle, "--json").json
    compute = [layer for layer in report["layers"] if layer["op"] == "Conv"]
    assert {layer["name"] for layer in compute} == {"stem", "down", "depth", "predict"}
    kept = {layer["name"]: layer["reason"] for layer in compute if layer["precision"] == "float"}
    assert "predict" in kept
    assert "prediction layer" in kept["predict"]
    assert report["int8_compute_count"] == 4 - len(kept)


def test_audit_of_a_float_model(made_bundle, edgeq):
    report = edgeq("audit", float_model(made_bundle), "--json").json
    assert report["int8_compute_count"] == 0
    assert {layer["reason"] for layer in report["layers"] if layer["op"] == "Conv"} == {
        "not quantised in the model"
    }


def test_explain_sorts_by_noise(bundle, edgeq):
    layers = edgeq("explain", bundle, "--json").json["layers"]
    noise = [layer["noise"] for layer in layers if layer["noise"] is not None]
    assert noise == sorted(noise, reverse=True)
    assert noise
    assert "more ops: --all" in edgeq("explain", bundle).out
    assert "more ops: --all" not in edgeq("explain", bundle, "--all").out


def test_explain_wants_a_bundle(detector, edgeq):
    result = edgeq("explain", detector)
    assert result.code == 2
    assert "is not a bundle" in result.err


# gate


def test_gate_fails_what_was_not_measured(bundle, edgeq):
    result = edgeq("gate", bundle, "--max-p90-ms", 1000, "--json")
    assert result.code == 3
    verdicts = {line["limit"]: line["verdict"] for line in result.json["lines"]}
    assert verdicts == {"max_map_drop": "not-measured", "max_p90_ms": "not-measured"}
    assert open_bundle(bundle).report("gate")["passed"] is False


def test_gate_measures_with_data_and_passes(bundle, made_bundle, edgeq):
    limits = ("--max-map-drop", 100, "--max-p90-ms", 1000, "--max-size-mb", 1, "--max-memory-mb", 2000)
    result = edgeq("gate", bundle, *limits, "--data", made_bundle[1], "--duration", "200ms", "--json")
    assert result.code == 0, result.err
    assert {line["verdict"] for line in result.json["lines"]} == {"pass"}
    assert set(open_bundle(bundle).report_names) >= {"accuracy", "latency", "gate"}
    again = edgeq("gate", bundle, *limits)
    assert again.code == 0
    assert "PASS" in again.out


def test_gate_fails_over_the_limit(bundle, edgeq):
    result = edgeq("gate", bundle, "--max-size-mb", 0.000001, "--target", "x86-onnxruntime", "--no-save")
    assert result.code == 3
    assert "FAIL" in result.out


def test_gate_of_a_plain_model(made_bundle, bundle, edgeq):
    result = edgeq(
        "gate", bundle / "model.qdq.onnx", "--float", float_model(made_bundle), "--data", made_bundle[1],
        "--max-map-drop", 100, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["lines"][0]["limit"] == "max_map_drop"


def test_gate_without_a_limit_is_an_error(detector, edgeq):
    result = edgeq("gate", detector)
    assert result.code == 2
    assert "no limit" in result.err


@pytest.mark.parametrize("name", ["model.qdq.onnx", "recipe.toml"])
def test_a_changed_bundle_is_refused(name, bundle, edgeq):
    with (bundle / name).open("ab") as file:
        file.write(b"x")
    result = edgeq("gate", bundle, "--max-size-mb", 10)
    assert result.code == 2
    assert name in result.err


# predict, targets, doctor


def test_predict_draws_and_tells(bundle, made_bundle, tmp_path, edgeq):
    image = next((made_bundle[1].parent / "images" / "val").iterdir())
    out = tmp_path / "out.jpg"
    result = edgeq("predict", bundle, image, "-o", out, "--confidence", 0.3, "--json")
    assert result.code == 0
    assert out.is_file()
    for found in result.json["detections"]:
        assert found["score"] >= 0.3
        assert found["class"] in ("bolt", "nut")
    refused = edgeq("predict", bundle, image, "-o", out)
    assert refused.code == 2
    assert "--force" in refused.err


def test_predict_refuses_what_is_no_image(bundle, tmp_path, edgeq):
    text = tmp_path / "a.jpg"
    text.write_text("no image")
    result = edgeq("predict", bundle, text, "-o", tmp_path / "out.jpg")
    assert result.code == 2
    assert "is not an image" in result.err
    assert not (tmp_path / "out.jpg").exists()


def test_targets(edgeq):
    names = [target["name"] for target in edgeq("targets", "--json").json["targets"]]
    assert "x86-onnxruntime" in names
    assert "VNNI" in edgeq("targets", "x86-onnxruntime").out


def test_doctor_names_every_runtime(edgeq):
    result = edgeq("doctor", "--json")
    assert result.code == 0
    found = result.json
    runtimes = {entry["runtime"]: entry for entry in found["runtimes"]}
    assert runtimes.keys() >= {"onnxruntime", "openvino", "tflite", "tensorrt", "coreml"}
    assert runtimes["onnxruntime"]["version"]
    assert set(found["extras"]) == {"host", "yolo"}
    assert "onnxruntime" in edgeq("doctor").out


def test_quiet_says_nothing_but_warnings(bundle, edgeq):
    assert edgeq("audit", bundle, "--quiet", "--json").err == ""


def test_spec_file_beside_a_plain_model_is_read(tmp_path, edgeq):
    model = make_detector()
    del model.metadata_props[:]
    path = tmp_path / "plain.onnx"
    onnx.save(model, path)
    data = make_data(tmp_path / "set")
    assert edgeq("evaluate", path, "--data", data).code == 2
    spec = {"family": '"yolov8"', "class_names": json.dumps(["bolt", "nut"])}
    (tmp_path / "plain.edgeq.toml").write_text("".join(f"{key} = {value}\n" for key, value in spec.items()))
    assert edgeq("evaluate", path, "--data", data, "--images", 2).code == 0
