"""NVIDIA TensorRT on Jetson boards and GPUs. Importing this loads nothing of NVIDIA's and no onnx.

The artifact is the QDQ ONNX model: an engine is built on the device that runs it, by that device's own
TensorRT, and never travels to another. On a machine without TensorRT edgeq lowers, lints, builds with
TensorRT-RTX where that is installed (a conformance check), and simulates accuracy in ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.runtimes.folder import RuntimeFolder

if TYPE_CHECKING:
    from edgeq.quantize.scheme import Scheme
    from edgeq.runtimes.base import AuditReport, RuntimeOption, SessionOptions
    from edgeq.targets import Target
    from edgeq.types import ModelPrecision

__all__ = ["RUNTIME", "TensorRT"]


@dataclass(frozen=True)
class TensorRT(RuntimeFolder):
    """The members of `edgeq.runtimes.base.Runtime`, `Simulated` and `SimulatedOtherwise`."""

    name: str = "tensorrt"
    requires: tuple[str, ...] = ()
    """Nothing of NVIDIA's: the host part needs onnx, which is edgeq's own extra."""
    install: str = (
        "on a Jetson it is part of JetPack (sudo apt install python3-libnvinfer; libnvinfer-bin has trtexec "
        "alone); on another machine with an NVIDIA GPU: pip install tensorrt"
    )
    artifact_suffixes: tuple[str, ...] = (".onnx",)
    default_float: str = "tf32"
    integer_io: bool = False

    @property
    def options(self) -> tuple[RuntimeOption, ...]:
        """What a user may set."""
        from edgeq.runtimes.base import RuntimeOption

        return (
            RuntimeOption(
                "dla-core",
                "dla_core",
                (),
                "number of the DLA core to build for, the GPU doing what it cannot; from TensorRT 11.4 on",
            ),
        )

    @property
    def precisions(self) -> tuple[ModelPrecision, ...]:
        """INT8, and the float model itself."""
        from edgeq.types import ModelPrecision

        return (ModelPrecision.INT8, ModelPrecision.FLOAT32)

    def runs_here(self) -> bool:
        """Whether this machine has TensorRT: its Python module, or ``trtexec``."""
        from edgeq.runtimes.tensorrt.trtexec import find_trtexec

        return importlib.util.find_spec("tensorrt") is not None or find_trtexec() is not None

    def audit(
        self, artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
    ) -> AuditReport:
        """The engine's layers where TensorRT is here, else the linter and the conformance check."""
        if self.runs_here():
            return super().audit(artifact, options=options, reasons=reasons)
        from edgeq.runtimes.tensorrt.check import check

        return check(artifact, options=options, reasons=reasons)

    def simulation(self, model: bytes) -> bytes:
        """Sums of products in integers; see `edgeq.quantize.unsigned`."""
        from edgeq.quantize.unsigned import with_unsigned_tensors

        return with_unsigned_tensors(model)

    def scheme(self, target: Target) -> Scheme:
        """The same for every target."""
        from edgeq.runtimes.tensorrt.scheme import scheme

        return scheme()


RUNTIME = TensorRT()
