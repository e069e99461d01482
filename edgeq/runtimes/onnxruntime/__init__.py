"""ONNX Runtime on the CPU. Importing this loads nothing: not onnxruntime, not numpy, not onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeq.quantize.scheme import Scheme
    from edgeq.runtimes.base import (
        Artifact,
        AuditReport,
        LowerOptions,
        ProbeReport,
        Session,
        SessionOptions,
    )
    from edgeq.targets import Target
    from edgeq.types import ModelPrecision

__all__ = ["RUNTIME", "OnnxRuntime"]


@dataclass(frozen=True)
class OnnxRuntime:
    """The members of `edgeq.runtimes.base.Runtime`."""

    name: str = "onnxruntime"
    requires: tuple[str, ...] = ("onnxruntime",)
    install: str = "pip install onnxruntime"
    artifact_suffixes: tuple[str, ...] = (".onnx",)
    default_float: str = "float32"
    integer_io: bool = False
    session_factory: str = "edgeq.runtimes.onnxruntime.session:open_session"

    @property
    def precisions(self) -> tuple[ModelPrecision, ...]:
        """INT8, and the float model itself."""
        from edgeq.types import ModelPrecision

        return (ModelPrecision.INT8, ModelPrecision.FLOAT32)

    def open_session(self, artifact: Path, *, options: SessionOptions) -> Session:
        """A loaded model; see `edgeq.runtimes.onnxruntime.session`."""
        from edgeq.runtimes.onnxruntime.session import open_session

        return open_session(artifact, options)

    def audit(
        self, artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
    ) -> AuditReport:
        """Kernels of the optimised graph; see `edgeq.runtimes.onnxruntime.audit`."""
        from edgeq.runtimes.onnxruntime.audit import audit

        return audit(artifact, options=options, reasons=reasons)

    def probe(self) -> ProbeReport:
        """Version and CPU instructions; see `edgeq.runtimes.onnxruntime.probe`."""
        from edgeq.runtimes.onnxruntime.probe import probe

        return probe()

    def scheme(self, target: Target) -> Scheme:
        """What the INT8 kernels accept with the target's activation type."""
        from edgeq.runtimes.onnxruntime.scheme import scheme

        return scheme(target.activation_dtype, weight_bits=target.weight_bits)

    def lower(self, model: bytes, folder: Path, *, options: LowerOptions) -> Artifact:
        """The QDQ model itself, as a file."""
        from edgeq.runtimes.onnxruntime.lower import lower

        return lower(model, folder, options)


RUNTIME = OnnxRuntime()
