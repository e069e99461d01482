"""The Python API: what the commands are made of. The README has a whole run of it."""

from __future__ import annotations

from edgeq.benchmark.loop import Contestant
from edgeq.benchmark.loop import measure as benchmark
from edgeq.bundle.pack import write_bundle
from edgeq.bundle.read import open_bundle
from edgeq.data.calibration import CalibrationCheck, check_calibration
from edgeq.data.dataset import open_dataset
from edgeq.evaluate.fit import check_input_fit
from edgeq.evaluate.run import compare, evaluate
from edgeq.gate import Budget, Measured
from edgeq.gate import check as gate
from edgeq.model.presets import SpecOverrides
from edgeq.model.source import load
from edgeq.quantize.pipeline import CalibrationSet, default_cache_folder, quantize
from edgeq.quantize.recipe import Recipe, load_recipe
from edgeq.runtimes import load_runtime
from edgeq.runtimes.base import LowerOptions, SessionOptions
from edgeq.targets import load_target
from edgeq.types import Dataset, PostProcess

__all__ = [
    "Budget",
    "CalibrationSet",
    "Contestant",
    "LowerOptions",
    "Measured",
    "PostProcess",
    "Recipe",
    "SessionOptions",
    "SpecOverrides",
    "benchmark",
    "calibration_set",
    "check_calibration",
    "check_input_fit",
    "compare",
    "default_cache_folder",
    "evaluate",
    "gate",
    "load",
    "load_recipe",
    "load_runtime",
    "load_target",
    "open_bundle",
    "open_dataset",
    "quantize",
    "write_bundle",
]


def calibration_set(images: Dataset, checked: CalibrationCheck) -> CalibrationSet:
    """The usable images of a checked set, as :func:`quantize` takes them."""
    keys = [sample.key for sample in checked.samples]
    return CalibrationSet(
        checked.samples, dict(zip(keys, checked.digests, strict=True)), images.origin, images.split
    )
