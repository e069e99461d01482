"""ONNX Runtime on the CPU. Importing this loads nothing: not onnxruntime, not numpy, not onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.runtimes.folder import RuntimeFolder

if TYPE_CHECKING:
    from edgeq.quantize.scheme import Scheme
    from edgeq.targets import Target
    from edgeq.types import ModelPrecision

__all__ = ["RUNTIME", "OnnxRuntime"]


@dataclass(frozen=True)
class OnnxRuntime(RuntimeFolder):
    """The members of `edgeq.runtimes.base.Runtime`."""

    name: str = "onnxruntime"
    requires: tuple[str, ...] = ("onnxruntime",)
    install: str = "pip install onnxruntime"
    artifact_suffixes: tuple[str, ...] = (".onnx",)
    default_float: str = "float32"
    integer_io: bool = False
    keeps_interface: bool = True

    @property
    def precisions(self) -> tuple[ModelPrecision, ...]:
        """INT8, and the float model itself."""
        from edgeq.types import ModelPrecision

        return (ModelPrecision.INT8, ModelPrecision.FLOAT32)

    def scheme(self, target: Target) -> Scheme:
        """What the INT8 kernels accept with the target's activation type."""
        from edgeq.runtimes.onnxruntime.scheme import scheme

        return scheme(target.activation_dtype, weight_bits=target.weight_bits)


RUNTIME = OnnxRuntime()
