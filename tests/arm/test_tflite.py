"""INT8 .tflite files compute on ARM what they compute here, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq import api
from edgeq.resources import data_folder
from edgeq.runtimes.base import LowerOptions
from tools.arm.cache import Environment
from tools.arm.models import count_model, run_model

from .conftest import Lower, Lowered, eval_tensors, nhwc

pytest.importorskip("ai_edge_litert", reason="the runtime tflite is not installed")

from edgeq.runtimes.tflite.integer_part import integer_part

DEMO = data_folder("demo") / "data.yaml"
XNNPACK_CPUS = ("cortex-a72", "cortex-a76")
SHARED = {
    "yolox_nano_coco_416.onnx": None,
    "yolov5n_coco_fp32_416.onnx": None,
    "efficientnet_lite0_imagenet_fp32_224.onnx": "tf-lite",
    "yolov8n_coco.pt": None,
    "yolo11n_coco.pt": None,
}
"""Model -> preset of its input."""


def _check_identical(lowered: Lowered, data: Path, folder: Path, *, cpu: str, images: int) -> None:
    inputs = nhwc(eval_tensors(lowered.source, data, count=images))
    part = integer_part(lowered.int8, folder)
    assert part is not None
    here, there = (run_model(part.path, inputs, cpu=kind) for kind in (None, cpu))
    assert here.details["delegate"] == there.details["delegate"] == "XNNPACK"
    versions = [run.details["version"] for run in (here, there)]
    if versions[0] != versions[1]:
        pytest.skip(f"LiteRT {versions[0]} here, {versions[1]} in the ARM environment: make that anew")
    assert len(here.outputs) == images
    for ours, theirs in zip(here.outputs, there.outputs, strict=True):
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            assert np.ptp(values) > 0, name
            np.testing.assert_array_equal(theirs[name], values, err_msg=name)
    # The images are told apart, so this is not a constant that agrees with itself.
    assert any((here.outputs[0][name] != here.outputs[1][name]).any() for name in here.outputs[0])


@pytest.mark.parametrize("cpu", XNNPACK_CPUS)
def test_int8_is_bit_identical_to_x86(demo_tflite: Lowered, tmp_path: Path, cpu: str) -> None:
    _check_identical(demo_tflite, DEMO, tmp_path, cpu=cpu, images=2)


def test_int8_outputs_differ_from_x86_by_the_float_tail_only(full: Environment, demo_tflite: Lowered) -> None:
    """The decode behind the integers is float: exp and sigmoid of two machines differ in their last bits."""
    inputs = nhwc(eval_tensors(demo_tflite.source, DEMO, count=2))
    here = run_model(demo_tflite.int8, inputs, cpu=None)
    there = run_model(demo_tflite.int8, inputs, cpu="cortex-a76")
    for ours, theirs in zip(here.outputs, there.outputs, strict=True):
        for name, values in ours.items():
            largest = float(np.abs(values).max())
            np.testing.assert_allclose(theirs[name], values, rtol=1e-4, atol=1e-6 * largest, err_msg=name)


@pytest.mark.parametrize("cpu", XNNPACK_CPUS)
def test_an_integers_only_model_gives_the_same_outputs_to_the_bit(
    demo_tflite: Lowered, tmp_path: Path, cpu: str
) -> None:
    """Its float tail runs in reference kernels, so boxes and scores are x86's, too."""
    runtime = api.load_runtime("tflite")
    options = LowerOptions(name="integers", integer_io=True)
    model, tail = runtime.lower(demo_tflite.qdq, tmp_path, options=options).files
    inputs = nhwc(eval_tensors(demo_tflite.source, DEMO, count=2))
    here, there = (run_model(model, inputs, cpu=kind, files=[tail]) for kind in (None, cpu))
    assert here.details["output_dtype"].startswith("int8")
    name = demo_tflite.source.head.output
    for ours, theirs in zip(here.outputs, there.outputs, strict=True):
        assert np.ptp(ours[name]) > 0
        np.testing.assert_array_equal(theirs[name], ours[name])
    assert (here.outputs[0][name] != here.outputs[1][name]).any()


def test_int8_costs_fewer_instructions_than_float(demo_tflite: Lowered) -> None:
    image = nhwc(eval_tensors(demo_tflite.source, DEMO, count=1))[0]
    (int8,) = count_model(demo_tflite.int8, image, cpu="cortex-a76", runs=1)
    (float32,) = count_model(demo_tflite.float32, image, cpu="cortex-a76", runs=1)
    assert int8 < 0.7 * float32


def test_int8_gains_most_where_there_is_a_dot_product(full: Environment, demo_tflite: Lowered) -> None:
    image = nhwc(eval_tensors(demo_tflite.source, DEMO, count=1))[0]
    ratios = {}
    for cpu in XNNPACK_CPUS:
        int8, float32 = (
            count_model(path, image, cpu=cpu) for path in (demo_tflite.int8, demo_tflite.float32)
        )
        assert int8[1] == pytest.approx(int8[0], rel=1e-3)
        ratios[cpu] = min(int8) / min(float32)
    assert ratios["cortex-a76"] < ratios["cortex-a72"] < 1


@pytest.mark.parametrize("cpu", XNNPACK_CPUS)
@pytest.mark.parametrize("name", SHARED)
def test_test_models_are_bit_identical_to_x86(
    full: Environment, shared_data: Path, lower: Lower, tmp_path: Path, name: str, cpu: str
) -> None:
    if name.endswith(".pt"):
        pytest.importorskip("ultralytics", reason="needs edgeq[yolo]")
    data = shared_data / "coco-mini/data.yaml"
    lowered = lower("tflite", shared_data / "models" / name, data, preset=SHARED[name])
    _check_identical(lowered, data, tmp_path, cpu=cpu, images=3)
