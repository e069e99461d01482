"""``--precision`` and ``--io``: what the artifact computes in, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.values import choice

if TYPE_CHECKING:
    from edgeq.targets import Target
    from edgeq.types import ModelPrecision

__all__ = ["PrecisionFlags", "check_needs", "for_precision"]


@dataclass(frozen=True)
class PrecisionFlags:
    """What the artifact computes in."""

    precision: Annotated[
        Any,
        typer.Option(
            "--precision", parser=choice("edgeq.types:ModelPrecision"),
            metavar="int8|int16x8|dynamic|int8-weights|float16|float32",
            help="What the artifact computes in.",
        ),
    ] = "int8"  # fmt: skip
    io: Annotated[
        str,
        typer.Option(
            "--io", metavar="float|int8", help="Type of inputs and outputs; int8 for microcontrollers, NPUs."
        ),
    ] = "float"

    @property
    def integer_io(self) -> bool:
        """Whether inputs and outputs are integers.

        Raises:
            InputError: neither word.
        """
        from edgeq.errors import InputError

        if self.io not in ("float", "int8"):
            raise InputError(f"--io {self.io!r} is neither float nor int8", fix="edgeq quantize --help")
        return self.io == "int8"


def for_precision(target: Target, precision: ModelPrecision) -> Target:
    """The target with the activations that a precision asks for."""
    from edgeq.types import IntegerType, ModelPrecision

    return (
        replace(target, activation_dtype=IntegerType.INT16) if precision is ModelPrecision.INT16X8 else target
    )


def check_needs(precision: ModelPrecision, calib: Path | None, *, has_choices: bool) -> None:
    """Return if what was given goes with a precision.

    Args:
        precision: the user's.
        calib: calibration images.
        has_choices: a recipe, or flags that change it.

    Raises:
        InputError: calibration images are missing, or choices were made that have no effect.
    """
    from edgeq.errors import InputError

    if precision.calibrated and calib is None:
        raise InputError(
            f"--precision {precision.value} takes calibration images",
            fix="--calib with a data.yaml or a folder of images; "
            "--precision dynamic, int8-weights, float16 and float32 take none",
        )
    if not precision.calibrated and has_choices:
        raise InputError(
            f"--recipe, --range and the like have no effect with --precision {precision.value}",
            fix="leave them out",
        )
