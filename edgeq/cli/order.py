"""What ``quantize`` is to do, flags resolved; the demo gives an order of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeq.cli.calibration import ImageChoice
from edgeq.gate import Budget
from edgeq.quantize.recipe import Recipe
from edgeq.runtimes.base import Runtime
from edgeq.targets import Target
from edgeq.types import ModelPrecision, PostProcess

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """A bundle to make."""

    source: Path
    folder: Path
    force: bool
    target: Target
    runtime: Runtime
    recipe: Recipe
    images: ImageChoice
    budget: Budget
    post: PostProcess
    cache: bool
    check_fit: bool
    precision: ModelPrecision
    integer_io: bool

    @property
    def title(self) -> str:
        """The precision for people: ``INT8``, ``float16``."""
        return self.precision.value.upper() if self.precision.calibrated else self.precision.value
