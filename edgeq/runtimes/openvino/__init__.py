"""OpenVINO. Importing this loads nothing: not openvino, not numpy, not onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.runtimes.folder import RuntimeFolder

if TYPE_CHECKING:
    from edgeq.quantize.scheme import Scheme
    from edgeq.runtimes.base import RuntimeOption
    from edgeq.targets import Target
    from edgeq.types import ModelPrecision

__all__ = ["RUNTIME", "OpenVino"]


@dataclass(frozen=True)
class OpenVino(RuntimeFolder):
    """The members of `edgeq.runtimes.base.Runtime`."""

    name: str = "openvino"
    requires: tuple[str, ...] = ("openvino",)
    install: str = 'pip install "edgeq[openvino]"'
    artifact_suffixes: tuple[str, ...] = (".xml",)
    integer_io: bool = False
    keeps_interface: bool = True

    @property
    def options(self) -> tuple[RuntimeOption, ...]:
        """What a user may set."""
        from edgeq.runtimes.base import RuntimeOption

        return (
            RuntimeOption(
                "hint", "performance_hint", ("latency", "throughput"),
                "throughput: several inferences at once, and bench tells how many a second; else latency",
            ),
        )  # fmt: skip

    @property
    def precisions(self) -> tuple[ModelPrecision, ...]:
        """INT8, and the float model with weights in float32 or float16."""
        from edgeq.types import ModelPrecision

        return (ModelPrecision.INT8, ModelPrecision.FLOAT32, ModelPrecision.FLOAT16)

    @property
    def default_float(self) -> str:
        """bfloat16 or float16 on CPUs that compute with it; see `edgeq.runtimes.openvino.probe`."""
        from edgeq.runtimes.openvino.probe import default_float

        return default_float()

    def scheme(self, target: Target) -> Scheme:
        """What the INT8 kernels accept, with the target's weights."""
        from edgeq.runtimes.openvino.scheme import scheme

        return scheme(weight_bits=target.weight_bits)


RUNTIME = OpenVino()
