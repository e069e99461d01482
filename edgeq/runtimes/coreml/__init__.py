"""Core ML on the Neural Engine, GPU and CPU of Apple's devices. Importing this loads nothing else.

Packages are built on any system; Core ML itself runs on macOS only. Elsewhere accuracy is simulated with
the QDQ model, and `edgeq.runtimes.coreml.interpret` checks the saved program against it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.runtimes.folder import RuntimeFolder

if TYPE_CHECKING:
    from edgeq.quantize.scheme import Scheme
    from edgeq.runtimes.base import Artifact, RuntimeOption
    from edgeq.targets import Target
    from edgeq.types import HeadSpec, InputSpec, ModelPrecision, PostProcess

__all__ = ["RUNTIME", "CoreMl"]


@dataclass(frozen=True)
class CoreMl(RuntimeFolder):
    """The members of `edgeq.runtimes.base.Runtime`, `Simulated`, `SimulatedOtherwise` and
    `WithSuppression`."""

    name: str = "coreml"
    requires: tuple[str, ...] = ("coremltools",)
    install: str = 'pip install "edgeq[coreml]"'
    artifact_suffixes: tuple[str, ...] = (".mlpackage",)
    default_float: str = "float16"
    integer_io: bool = False

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


RUNTIME = CoreMl()
