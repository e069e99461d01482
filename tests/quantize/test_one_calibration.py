"""Calibrate once, lower everywhere: one recipe file and one pass over the images for three runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.quantize import pipeline
from edgeq.quantize.pipeline import quantize
from edgeq.quantize.recipe import load_recipe
from edgeq.runtimes import load_runtime
from edgeq.runtimes.base import LowerOptions, SessionOptions
from edgeq.targets import load_target

from .nets import calibration_set, float_model, images, run, silu_net

TARGETS = ("x86-onnxruntime", "x86-tflite", "intel-vnni")
COUNT = 6
RECIPE = """
schema = 1
[tune]
max_predicted_drop = false
[[rules]]
match = "pointwise"
range = "minmax"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Target -> what was made for it, one after the other; and how many images were run for statistics."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "recipe.toml").write_text(RECIPE)
    model, calibration = float_model(silu_net()), calibration_set(folder / "images", COUNT)
    seen = []
    original = pipeline.Observer.observe

    def counting(self, tensors, **options):
        return original(self, (seen.append(1) or tensor for tensor in tensors), **options)

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.Observer, "observe", counting)
        for name in TARGETS:
            target = load_target(name)
            scheme = load_runtime(target.runtime, installed=False).scheme(target)
            recipe = load_recipe(folder / "recipe.toml")
            found[name] = quantize(model, calibration, scheme, recipe, cache_folder=folder / "cache")
    return found, len(seen), model


def test_the_images_are_run_once(made):
    found, observed, _ = made
    assert [found[name].cache_hit for name in TARGETS] == [False, True, True]
    assert observed == COUNT
    assert len({found[name].statistics.to_bytes() for name in TARGETS}) == 1
    assert len({found[name].plan.runtime for name in TARGETS}) == 3


@pytest.mark.parametrize("name", TARGETS)
def test_each_artifact_of_it_runs_on_its_own_runtime(made, name, tmp_path):
    found, _, model = made
    runtime = load_runtime(load_target(name).runtime, installed=False)
    for module in runtime.requires:
        pytest.importorskip(module)
    artifact = runtime.lower(found[name].qdq, tmp_path, options=LowerOptions(input=model.input))
    session = runtime.open_session(artifact.path, options=SessionOptions())
    image = images(1, seed=11)[0]
    channels_last = session.inputs[0].shape[-1] == 3
    outputs = session.infer(np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if channels_last else image)
    output = next(iter(outputs.values()))
    exact = run(model.onnx_bytes, image)[0]
    output = output if output.shape == exact.shape else output.transpose(0, 3, 1, 2)
    # Eight bits throughout: a few hundredths of the signal.
    assert np.std(output - exact) < 0.1 * np.std(exact)
