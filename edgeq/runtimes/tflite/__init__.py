"""TensorFlow Lite (LiteRT) on the CPU through XNNPACK. Importing this loads nothing but the import system."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.runtimes.folder import RuntimeFolder

if TYPE_CHECKING:
    from edgeq.quantize.scheme import Scheme
    from edgeq.runtimes.base import RuntimeOption
    from edgeq.runtimes.optional import IntegerPart
    from edgeq.targets import Target
    from edgeq.types import ModelPrecision

__all__ = ["RUNTIME", "TfliteRuntime"]

_WHEELS = ("ai_edge_litert", "tflite_runtime")
"""The maintained wheel, and the last one that boards with Python 3.11 or older may have instead."""


@dataclass(frozen=True)
class TfliteRuntime(RuntimeFolder):
    """The members of `edgeq.runtimes.base.Runtime`, `SimulatedOtherwise` and `ShowsIntegers`."""

    name: str = "tflite"
    install: str = 'pip install "edgeq[tflite]"'
    artifact_suffixes: tuple[str, ...] = (".tflite",)
    default_float: str = "float32"
    integer_io: bool = True

    @property
    def requires(self) -> tuple[str, ...]:
        """The one of the two wheels that is here, else the maintained one."""
        return next(((name,) for name in _WHEELS if importlib.util.find_spec(name)), _WHEELS[:1])

    @property
    def options(self) -> tuple[RuntimeOption, ...]:
        """What a user may set."""
        from edgeq.runtimes.base import RuntimeOption

        return (
            RuntimeOption(
                "xnnpack", "xnnpack", ("on", "off"), "off: TFLite's own kernels; on unless said otherwise"
            ),
        )

    @property
    def precisions(self) -> tuple[ModelPrecision, ...]:
        """All but INT8 weights that are computed with in float."""
        from edgeq.types import ModelPrecision

        return tuple(entry for entry in ModelPrecision if entry is not ModelPrecision.INT8_WEIGHTS)

    def simulation(self, model: bytes) -> bytes:
        """Sums of products in integers; see `edgeq.quantize.unsigned`."""
        from edgeq.quantize.unsigned import with_unsigned_tensors

        return with_unsigned_tensors(model)

    def scheme(self, target: Target) -> Scheme:
        """What the INT8 kernels accept; see `edgeq.runtimes.tflite.scheme`."""
        from edgeq.runtimes.tflite.scheme import scheme

        return scheme(target.activation_dtype)

    def integer_part(self, artifact: Path, folder: Path) -> IntegerPart | None:
        """Where float and INT8 layers meet; see `edgeq.runtimes.tflite.integer_part`."""
        from edgeq.runtimes.tflite.integer_part import integer_part

        return integer_part(artifact, folder)


RUNTIME = TfliteRuntime()
