"""Core ML on the Neural Engine, GPU and CPU of Apple's devices. Importing this loads nothing else.

Packages are built on any system; Core ML itself runs on macOS only. Elsewhere accuracy is simulated with
the QDQ model, and `edgeq.runtimes.coreml.interpret` checks the saved program against it.
"""

from __future__ import annotations

import sys
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
        RuntimeOption,
        Session,
        SessionOptions,
    )
    from edgeq.targets import Target
    from edgeq.types import HeadSpec, InputSpec, ModelPrecision, PostProcess

__all__ = ["RUNTIME", "CoreMl"]


@dataclass(frozen=True)
class CoreMl:
    """The members of `edgeq.runtimes.base.Runtime`, `Simulated`, `SimulatedOtherwise` and
    `WithSuppression`."""

    name: str = "coreml"
    requires: tuple[str, ...] = ("coremltools",)
    install: str = 'pip install "edgeq[coreml]"'
    artifact_suffixes: tuple[str, ...] = (".mlpackage",)
    default_float: str = "float16"
    integer_io: bool = False
    session_factory: str = "edgeq.runtimes.coreml.session:open_session"

    @property
    def options(self) -> tuple[RuntimeOption, ...]:
        """What a user may set."""
        from edgeq.runtimes.base import RuntimeOption

        return (
            RuntimeOption(
                "compute-units",
                "compute_units",
                ("all", "cpu-and-ne", "cpu-and-gpu", "cpu-only"),
                "which of CPU, GPU and Neural Engine Core ML may use; all unless said otherwise",
            ),
        )

    @property
    def precisions(self) -> tuple[ModelPrecision, ...]:
        """INT8, INT8 weights alone, and the float model in float16 or float32."""
        from edgeq.types import ModelPrecision

        return (
            ModelPrecision.INT8,
            ModelPrecision.INT8_WEIGHTS,
            ModelPrecision.FLOAT16,
            ModelPrecision.FLOAT32,
        )

    def runs_here(self) -> bool:
        """Whether Core ML is here: it is part of macOS."""
        return sys.platform == "darwin"

    def open_session(self, artifact: Path, *, options: SessionOptions) -> Session:
        """A loaded model, on macOS; see `edgeq.runtimes.coreml.session`."""
        from edgeq.runtimes.coreml.session import open_session

        return open_session(artifact, options)

    def audit(
        self, artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
    ) -> AuditReport:
        """The program's types and, on macOS, each operation's device; see `edgeq.runtimes.coreml.audit`."""
        from edgeq.runtimes.coreml.audit import audit

        return audit(artifact, options=options, reasons=reasons)

    def probe(self) -> ProbeReport:
        """Versions, and what this machine can do with a package; see `edgeq.runtimes.coreml.probe`."""
        from edgeq.runtimes.coreml.probe import probe

        return probe()

    def simulation(self, model: bytes) -> bytes:
        """Float16 between the operations; see `edgeq.runtimes.coreml.simulate`."""
        from edgeq.runtimes.coreml.simulate import half_simulation

        return half_simulation(model)

    def with_suppression(
        self, model: bytes, path: Path, *, spec: InputSpec, head: HeadSpec, post: PostProcess
    ) -> Artifact:
        """A pipeline with NonMaximumSuppression; see `edgeq.runtimes.coreml.vision`."""
        from edgeq.runtimes.coreml.vision import write_vision

        return write_vision(model, path, spec=spec, head=head, post=post)

    def scheme(self, target: Target) -> Scheme:
        """The same for every target; see `edgeq.runtimes.coreml.scheme`."""
        from edgeq.runtimes.coreml.scheme import scheme

        return scheme()

    def lower(self, model: bytes, folder: Path, *, options: LowerOptions) -> Artifact:
        """An ``.mlpackage`` folder; see `edgeq.runtimes.coreml.lower`."""
        from edgeq.runtimes.coreml.lower import lower

        return lower(model, folder, options)


RUNTIME = CoreMl()
