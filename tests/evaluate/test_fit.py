"""The pre-processing check: right models pass, wrong ranges and channel orders are named."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgeq.data.dataset import open_dataset
from edgeq.errors import CalibrationError
from edgeq.evaluate.fit import Severity, check_input_fit
from edgeq.model.presets import SpecOverrides
from edgeq.model.recognise import recognise
from edgeq.types import ColorOrder, HeadFamily, HeadSpec, InputSpec, PostProcess, Sample

from .conftest import OnnxSession

SPEC = InputSpec(name="images", height_px=32, width_px=32)
HEAD = HeadSpec(family=HeadFamily.CLASSIFIER, output="out", class_names=("red", "green", "blue", "none"))


def classify(tensor):
    """Which of red, green and blue stands out in an RGB image of range 0..1; beyond it, noise."""
    strength = tensor[0].mean(axis=(1, 2))
    logits = np.append(20 * (strength - strength.mean()), 1.0)
    if strength.max() > 1:
        logits = np.sin(1e3 * tensor[0, :, 3, 3].sum() * np.arange(1, 5))
    return {"out": logits[None].astype(np.float32)}


@pytest.fixture(scope="module")
def colored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colored")
    rng = np.random.default_rng(0)
    samples = []
    for index in range(24):
        image = rng.integers(60, 120, (40, 40, 3), dtype=np.uint8)
        image[..., index % 3] += np.uint8(60 + index)
        path = folder / f"{index:02}.png"
        cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))
        samples.append(Sample(path.name, path, index % 3))
    return samples


def check(samples, spec):
    return check_input_fit(classify, samples, spec=spec, head=HEAD, post=PostProcess())


def test_the_right_input_passes(colored):
    got = check(colored, SPEC)
    assert got.fits
    assert got.findings == ()
    got.require()
    assert got.color_sigmas < -2
    assert json.loads(json.dumps(got.to_json()))["fits"] is True


@pytest.mark.parametrize("factor", [255, 1 / 255])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_wrong_range_is_named_without_labels_too(colored, factor, labelled):
    samples = colored if labelled else [replace(sample, truth=None) for sample in colored]
    got = check(samples, replace(SPEC, std=(255 / factor,) * 3))
    with pytest.raises(CalibrationError, match=r"--mean 0 --std 255 \(range 0..1\)") as error:
        got.require()
    assert ("too large" if factor > 1 else "too small") in str(error.value)


def test_swapped_colours_are_named_where_labels_allow_it(colored):
    swapped = replace(SPEC, color=ColorOrder.BGR)
    with pytest.raises(CalibrationError, match="--color rgb"):
        check(colored, swapped).require()
    got = check([replace(sample, truth=None) for sample in colored], swapped)
    assert got.fits
    assert got.color_sigmas is None
    assert [finding.severity for finding in got.findings] == [Severity.NOTE]


def test_a_model_that_sees_nothing_gets_a_note(colored):
    got = check_input_fit(
        lambda tensor: {"out": np.zeros((1, 4), np.float32)},
        colored,
        spec=SPEC,
        head=HEAD,
        post=PostProcess(),
    )
    assert got.fits
    assert "finds nothing" in got.findings[0].message


@pytest.fixture(
    scope="module",
    params=["yolox_nano_coco_416", "yolov5n_coco_fp32_416", "efficientnet_lite0_imagenet_fp32_224"],
)
def real(request, shared_data):
    session = OnnxSession(shared_data / "models" / f"{request.param}.onnx")
    classifier = request.param.startswith("efficientnet")
    specs = recognise(
        inputs=session.inputs,
        outputs=session.outputs,
        metadata={},
        overrides=SpecOverrides(preset="tf-lite" if classifier else None),
    )
    data = open_dataset(shared_data / ("imagenet-mini" if classifier else "coco-mini"))
    return session, specs, data


def check_real(real, spec, *, samples=None):
    session, specs, data = real
    samples = data.samples if samples is None else samples
    return check_input_fit(session.infer, samples, spec=spec, head=specs.head, post=PostProcess())


def test_correct_real_models_raise_no_alarm(real):
    _, specs, data = real
    for part in (data.samples[:96], data.samples[96:192]):
        got = check_real(real, specs.input, samples=part)
        assert got.findings == ()
        assert got.mirror_agreement["given"] > 0.75
        assert got.color_sigmas < -1


@pytest.mark.parametrize("factor", [255, 1 / 255])
def test_wrong_ranges_of_real_models_are_caught(real, factor):
    _, specs, data = real
    right = specs.input
    wrong = replace(right, std=tuple(value / factor for value in right.std))
    unlabelled = [replace(sample, truth=None) for sample in data.samples]
    with pytest.raises(CalibrationError, match=f"--std {right.std[0]:g}"):
        check_real(real, wrong, samples=unlabelled).require()


def test_swapped_colours_of_real_models_are_seen(real):
    # 16 to 32 images: 2.2 to 5.2 standard errors, and never below 0.7 the other way round.
    _, specs, _ = real
    other = ColorOrder.BGR if specs.input.color is ColorOrder.RGB else ColorOrder.RGB
    got = check_real(real, replace(specs.input, color=other))
    assert got.color_sigmas > 1.5
    assert f"--color {specs.input.color.value}" in str(got.findings[0].fix)
