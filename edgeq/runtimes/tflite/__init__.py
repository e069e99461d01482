"""TensorFlow Lite (LiteRT) on the CPU through XNNPACK. Importing this loads nothing but the import system."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeq.quantize.scheme import Scheme
    from edgeq.runtimes.base import (
        Artifact,
        AuditReport,
        IntegerPart,
        LowerOptions,
        ProbeReport,
        RuntimeOption,
        Session,
        SessionOptions,
    )
    from edgeq.targets import Target
    from edgeq.types import ModelPrecision

__all__ = ["RUNTIME", "TfliteRuntime"]

_WHEELS = ("ai_edge_litert", "tflite_runtime")
"""The maintained wheel, and the last one that boards with Python 3.11 or older may have instead."""


@dataclass(frozen=True)
class TfliteRuntime:
    """The members of `edgeq.runtimes.base.Runtime`."""

    name: str = "tflite"
    install: str = 'pip install "edgeq[tflite]"'
    artifact_suffixes: tuple[str, ...] = (".tflite",)
    default_float: str = "float32"
    integer_io: bool = True
    session_factory: str = "edgeq.runtimes.tflite.session:open_session"

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

    def open_session(self, artifact: Path, *, options: SessionOptions) -> Session:
        """A loaded model; see `edgeq.runtimes.tflite.session`."""
        from edgeq.runtimes.tflite.session import open_session

        return open_session(artifact, options)

    def audit(
        self, artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
    ) -> AuditReport:
        """Ops by precision and delegate; see `edgeq.runtimes.tflite.audit`."""
        from edgeq.runtimes.tflite.audit import audit

        return audit(artifact, options=options, reasons=reasons)

    def probe(self) -> ProbeReport:
        """Version and CPU instructions; see `edgeq.runtimes.tflite.probe`."""
        from edgeq.runtimes.tflite.probe import probe

        return probe()

    def scheme(self, target: Target) -> Scheme:
        """What the INT8 kernels accept; see `edgeq.runtimes.tflite.scheme`."""
        from edgeq.runtimes.tflite.scheme import scheme

        return scheme(target.activation_dtype)

    def lower(self, model: bytes, folder: Path, *, options: LowerOptions) -> Artifact:
        """A ``.tflite`` file, NHWC inside; see `edgeq.runtimes.tflite.lower`."""
        from edgeq.runtimes.tflite.lower import lower

        return lower(model, folder, options)

    def integer_part(self, artifact: Path, folder: Path) -> IntegerPart | None:
        """Where float and INT8 layers meet; see `edgeq.runtimes.tflite.integer_part`."""
        from edgeq.runtimes.tflite.integer_part import integer_part

        return integer_part(artifact, folder)


RUNTIME = TfliteRuntime()
