"""The seams between edgeq and a runtime: what a runtime's folder has to offer.

``Session`` and what it returns are the device side: numpy and the runtime's own wheel only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from edgeq.types import COMPUTE_OPS, InputSpec, ModelPrecision, TensorInfo

if TYPE_CHECKING:
    from edgeq.quantize.scheme import Scheme
    from edgeq.targets import Target

__all__ = [
    "Artifact",
    "AuditReport",
    "LayerAudit",
    "LayerPrecision",
    "LayerTime",
    "LintFinding",
    "LowerOptions",
    "ProbeReport",
    "Runtime",
    "RuntimeOption",
    "Session",
    "SessionOptions",
]


@dataclass(frozen=True)
class SessionOptions:
    """How to run an artifact; recorded with every measurement."""

    threads: int = 1
    """Threads inside one inference."""
    default_float: bool = False
    """Run a float model in the runtime's own default precision rather than forced float32."""
    xnnpack: bool | None = None
    """TFLite: run through XNNPACK, or on TFLite's own kernels alone; None: its default, which is XNNPACK."""
    performance_hint: str | None = None
    """OpenVINO: ``latency``, or ``throughput`` for several inferences at once; None: latency."""
    compute_capability: str | None = None
    """Of the NVIDIA GPU that a model is checked for on a machine without one: ``8.7``."""
    dla_core: int | None = None
    """NVIDIA DLA core to run on, the GPU doing what it cannot; None: the GPU."""
    compute_units: str | None = None
    """Core ML: ``all``, ``cpu-and-ne``, ``cpu-and-gpu`` or ``cpu-only``; None: its default, which is all."""


@dataclass(frozen=True)
class RuntimeOption:
    """What a user may set of one runtime with ``--runtime-option NAME=VALUE``.

    A runtime lists its own in an attribute ``options``; one without it has none.
    """

    name: str
    """As the user writes it."""
    field: str
    """Of `SessionOptions`."""
    values: tuple[str, ...] = ()
    """Allowed; empty: whole numbers. ``("on", "off")`` is a switch."""
    help: str = ""


@dataclass(frozen=True)
class LowerOptions:
    """How to write an artifact."""

    name: str = "model"
    """Stem of its file names."""
    float16_weights: bool = False
    """Store weights of what stays float in float16, where the runtime can."""
    integer_io: bool = False
    """Inputs and outputs in the integer types of their grids, where the runtime can."""
    dynamic_range: bool = False
    """Weights of float layers in int8, their activations rounded while running, where the runtime can."""
    int8_weights: bool = False
    """Weights of float layers stored in int8, computed in float, where the runtime can."""
    default_float: bool = False
    """A float model in the runtime's own default precision, where that is settled in the artifact."""
    input: InputSpec | None = None
    """What the model wants to see, for artifacts that take images; None: the artifact takes the tensor."""
    labels: tuple[str, ...] = ()
    """Class names, for artifacts that carry them."""


@dataclass(frozen=True)
class Artifact:
    """What lowering wrote."""

    path: Path
    """What a session is opened with: a file, or a folder (``.mlpackage``)."""
    files: tuple[Path, ...]
    """Every file of it, all in or below the folder that ``path`` lies in."""

    @property
    def size_mb(self) -> float:
        """Of all its files, 10^6 bytes."""
        return sum(file.stat().st_size for file in self.files) / 1e6


class Session(Protocol):
    """A loaded artifact, ready to infer."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The artifact's inputs."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The artifact's outputs."""
        ...

    @property
    def details(self) -> Mapping[str, str]:
        """What ran: runtime version, provider or delegate, threads, precision; goes into every record.

        A key ``warning`` holds what the user has to know before trusting its results.
        """
        ...

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for one input tensor of ``InputSpec.shape``."""
        ...


@dataclass(frozen=True)
class LayerTime:
    """One layer as the runtime executed it."""

    name: str
    """Name of the source node, or the runtime's own where it is gone."""
    op: str
    """ONNX op where it is known, else the runtime's word."""
    precision: str
    """As the runtime says: ``u8``, ``bf16``, ...; empty: it does not say."""
    kernel: str
    time_ms: float
    """Median of the inferences."""


class LayerPrecision(str, Enum):
    """The precision that a layer really runs in."""

    INT8 = "int8"
    FLOAT = "float"
    OTHER = "other"


@dataclass(frozen=True)
class LayerAudit:
    """One layer as the runtime executes it."""

    name: str
    """Name of the source node, or the runtime's own where it is gone."""
    op: str
    precision: LayerPrecision
    kernel: str
    """The runtime's name for the kernel: ``QLinearConv``, ``FusedConv``, ..."""
    reason: str = ""
    """Why it is not INT8, in words."""
    time_ms: float | None = None
    """Of one inference, where the runtime tells."""


@dataclass(frozen=True)
class LintFinding:
    """A rule of the runtime's that a model breaks at one node."""

    rule: str
    """``zero-point``, ``weight-axis``, ..."""
    severity: str
    """``error``: refused, or computed otherwise than ONNX says; ``silent-float``: built without a word, but
    the layer runs in float; ``note``: it works, slower or not on every version."""
    node: str
    """Name of the ONNX node; empty: the model as a whole."""
    message: str
    fix: str


@dataclass(frozen=True)
class AuditReport:
    """What really runs in INT8."""

    runtime: str
    layers: tuple[LayerAudit, ...]
    details: Mapping[str, str] = field(default_factory=dict)
    """``verified`` tells how, where that was not the runtime itself on its own device."""
    remarks: tuple[str, ...] = ()
    """What a list of layers does not show at a glance, one sentence each."""
    findings: tuple[LintFinding, ...] = ()
    """Of the runtime's linter, where it has one; the severest first."""

    @property
    def compute_layers(self) -> tuple[LayerAudit, ...]:
        """Convolutions and matrix products: where the work is."""
        return tuple(layer for layer in self.layers if layer.op in COMPUTE_OPS)

    @property
    def int8_compute_count(self) -> int:
        """How many convolutions and matrix products are integer."""
        return sum(layer.precision is LayerPrecision.INT8 for layer in self.compute_layers)


@dataclass(frozen=True)
class ProbeReport:
    """Whether a runtime can run here, and with which instructions."""

    runtime: str
    version: str | None
    """None: not installed."""
    features: Mapping[str, str] = field(default_factory=dict)
    """``vnni: yes``, ``threads: 4``, ..."""
    problems: tuple[str, ...] = ()
    """What is missing and how to get it."""


class Runtime(Protocol):
    """All that edgeq asks of a runtime's folder; making one loads nothing but edgeq's own modules."""

    @property
    def name(self) -> str:
        """As in the entry point and in target profiles."""
        ...

    @property
    def requires(self) -> tuple[str, ...]:
        """Modules of the vendor's that have to be importable."""
        ...

    @property
    def install(self) -> str:
        """The command that brings them."""
        ...

    @property
    def artifact_suffixes(self) -> tuple[str, ...]:
        """File name endings that it loads: ``.onnx``."""
        ...

    @property
    def default_float(self) -> str:
        """Precision that a float model runs in when nothing is forced: ``float32``, ``bfloat16``."""
        ...

    @property
    def precisions(self) -> tuple[ModelPrecision, ...]:
        """What `lower` can write, the default first."""
        ...

    @property
    def integer_io(self) -> bool:
        """Whether `lower` can write integer inputs and outputs."""
        ...

    @property
    def session_factory(self) -> str:
        """``module:function`` that takes (path, `SessionOptions`), for `edgeq.benchmark.memory`."""
        ...

    def open_session(self, artifact: Path, *, options: SessionOptions) -> Session:
        """A loaded artifact.

        Raises:
            ModelError: it cannot be loaded.
            UnavailableError: the runtime is not installed.
        """
        ...

    def audit(
        self, artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
    ) -> AuditReport:
        """What really runs in which precision.

        Args:
            artifact: what the runtime loads.
            options: as it will be run.
            reasons: node name -> why the plan keeps it in float, where a plan is known.
        """
        ...

    def probe(self) -> ProbeReport:
        """Whether it can run here, and with which instructions."""
        ...

    def scheme(self, target: Target) -> Scheme:
        """What its INT8 kernels accept on that target (host)."""
        ...

    def lower(self, model: bytes, folder: Path, *, options: LowerOptions) -> Artifact:
        """Write the artifact of a QDQ or float ONNX model into a folder (host).

        Raises:
            ModelError: an op that the runtime has not, with its node and what to do.
            OutputError: it cannot be written.
        """
        ...
