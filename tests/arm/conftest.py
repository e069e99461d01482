"""The ARM environment, if it has been made on this machine, and a model to run in it.

Nothing here makes the environment: ``python -m tools.arm make`` does. Where it is there, the tests that take
seconds run; EDGEQ_ARM_TESTS=full adds those that take minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq import api
from edgeq.data.stream import iter_tensors
from edgeq.errors import UnavailableError
from edgeq.model.source import FloatModel
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.resources import data_folder
from edgeq.runtimes.base import LowerOptions
from tools.arm.cache import Environment, require
from tools.arm.user_mode import check_user_mode

CALIBRATION_IMAGES = 8
ALL_INTEGER = Recipe(range=RangeMethod.MINMAX, max_predicted_drop=None, float_heads=False)
"""The quickest recipe, with every op that the runtime has in INT8; accuracy does not matter here."""


@dataclass(frozen=True)
class Lowered:
    """A model of the test data in one runtime's form."""

    source: FloatModel
    qdq: bytes
    int8: Path
    float32: Path


Lower = Callable[..., Lowered]
"""(runtime's name, source, data.yaml, preset=, recipe=) -> :class:`Lowered`."""


@pytest.fixture(scope="session")
def arm() -> Environment:
    try:
        environment = require()
        check_user_mode()
    except UnavailableError as error:
        pytest.skip(str(error))
    return environment


@pytest.fixture(scope="session")
def full(arm: Environment) -> Environment:
    if os.environ.get("EDGEQ_ARM_TESTS") != "full":
        pytest.skip("takes minutes; EDGEQ_ARM_TESTS=full runs it")
    return arm


@pytest.fixture(scope="session")
def lower(tmp_path_factory: pytest.TempPathFactory) -> Lower:
    """Quantises a model for ARM with a few images and lowers it, INT8 and float."""

    def make(
        runtime_name: str,
        source: Path,
        data: Path,
        *,
        preset: str | None = None,
        recipe: Recipe = ALL_INTEGER,
    ) -> Lowered:
        runtime = api.load_runtime(runtime_name)
        model = api.load(source, overrides=api.SpecOverrides(preset=preset))
        images = api.open_dataset(data, split="train")
        checked = api.check_calibration(images, api.open_dataset(data, split="val"))
        some = api.calibration_set(images, checked)
        few = api.CalibrationSet(some.samples[:CALIBRATION_IMAGES], some.digests, some.origin, some.split)
        # Its activations are signed, as ARM's kernels want them.
        scheme = runtime.scheme(api.load_target("arm64-onnxruntime"))
        result = api.quantize(model, few, scheme, recipe, cache_folder=api.default_cache_folder())
        folder = tmp_path_factory.mktemp(runtime_name)
        int8 = runtime.lower(result.qdq, folder, options=LowerOptions(name="int8"))
        float32 = runtime.lower(model.onnx_bytes, folder, options=LowerOptions(name="float"))
        return Lowered(model, result.qdq, int8.path, float32.path)

    return make


@pytest.fixture(scope="session")
def demo_tflite(arm: Environment, lower: Lower) -> Lowered:
    pytest.importorskip("ai_edge_litert", reason="the runtime tflite is not installed")
    folder = data_folder("demo")
    return lower("tflite", folder / "model.onnx", folder / "data.yaml")


def eval_tensors(model: FloatModel, data: Path, *, count: int) -> list[tuple[npt.NDArray[Any], Any]]:
    """Input tensors (1, 3, h, w) and geometries of the first evaluation images."""
    samples = api.open_dataset(data, split="val").samples[:count]
    return [(tensor, geometry) for _, tensor, geometry in iter_tensors(samples, model.input)]


def nhwc(tensors: list[tuple[npt.NDArray[Any], Any]]) -> npt.NDArray[Any]:
    """(n, 1, h, w, 3): what TFLite takes."""
    return np.stack([np.transpose(tensor, (0, 2, 3, 1)) for tensor, _ in tensors])
