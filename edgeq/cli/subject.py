"""What a command is about: a bundle, or a plain model with an optional float model beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeq.bundle.read import Bundle
from edgeq.errors import SpecError, UnavailableError
from edgeq.model.fitting import fit_specs
from edgeq.runtimes import load_runtime, missing_modules, runs_here, simulation_of
from edgeq.runtimes.base import Runtime, Session, SessionOptions
from edgeq.types import HeadSpec, InputSpec

__all__ = ["Runner", "Specs", "Subject"]


@dataclass(frozen=True)
class Specs:
    """How to feed a model and how to read it."""

    input: InputSpec
    head: HeadSpec

    def fitted(self, session: Session) -> Specs:
        """The same in the layout and with the names of a session.

        Raises:
            SpecError: it is another model.
        """
        return Specs(*fit_specs(self.input, self.head, session.inputs, session.outputs))


@dataclass(frozen=True)
class Runner:
    """What gives a subject's answers on this machine."""

    runtime: Runtime
    path: Path
    simulates: str = ""
    """Name of the runtime that is not here, for which ONNX Runtime runs the QDQ model; empty: it is here."""

    @property
    def note(self) -> str:
        """Said wherever numbers come of it; empty where nothing is simulated."""
        if not self.simulates:
            return ""
        return (
            f"simulated: {self.simulates} does not run on this machine, so ONNX Runtime ran the QDQ model; "
            "the device may round differently"
        )


@dataclass(frozen=True)
class Subject:
    """A model to be judged, with all that judging takes."""

    name: str
    artifact: Path
    size_mb: float
    """Of the artifact, 10^6 bytes."""
    runtime: Runtime
    bundle: Bundle | None
    reference: Path | None
    """The float model as ONNX; None: nothing to compare with."""
    float_artifact: Path | None
    """The float model as the runtime loads it; None: it has to be lowered first, or there is none."""
    specs: Specs | None
    """None: not asked for, or (with ``unknown``) not told by a plain model."""
    unknown: str = ""
    """Why the specs are not known."""
    label: str = "int8"
    """Name in comparisons with float: its precision."""
    reference_specs: Specs | None = None
    """Of the float model, where they are others than the artifact's; None: the same but for the layout."""
    options: SessionOptions = field(default_factory=SessionOptions)
    """What the user asks of its runtime; threads and float precision are each command's own."""
    simulated: Path | None = None
    """Model that stands in where the runtime does not run; None: the bundle's QDQ model, or the artifact."""
    scratch: Path | None = None
    """Folder for files that go with the command."""

    @property
    def known(self) -> Specs:
        """The specs.

        Raises:
            SpecError: a plain model does not tell them.
        """
        if self.specs is None:
            raise SpecError(self.unknown or f"input and head of {self.artifact} are not known")
        return self.specs

    @property
    def reference_runtime(self) -> Runtime:
        """Runs the float ONNX model here: the subject's own runtime where it can, else ONNX Runtime."""
        own = self.runtime
        loads = ".onnx" in own.artifact_suffixes and not missing_modules(own) and runs_here(own)
        return own if loads else load_runtime("onnxruntime")

    def judged_name(self, *, compared: bool) -> str:
        """What tables call the subject: its role beside a float model or of a bundle, else its own name."""
        return self.label if compared or self.bundle is not None else self.name

    @property
    def runner(self) -> Runner:
        """The subject's own runtime and artifact, or their simulation.

        Raises:
            UnavailableError: the runtime does not run here, and there is no QDQ model to simulate with.
        """
        if runs_here(self.runtime):
            return Runner(self.runtime, self.artifact)
        onnx = self.artifact if self.artifact.suffix == ".onnx" else None
        model = self.simulated or onnx or self._simulation()
        if model is None:
            raise UnavailableError(
                f"{self.runtime.name} does not run on this machine, and {self.name} holds no QDQ model "
                "to simulate it with",
                fix=self.runtime.install,
            )
        return Runner(load_runtime("onnxruntime"), model, simulates=self.runtime.name)

    def _simulation(self) -> Path | None:
        """The bundle's QDQ model, rounding as the artifact does."""
        qdq = None if self.bundle is None else self.bundle.qdq_path
        if qdq is None or self.scratch is None:
            return qdq
        path = self.scratch / "simulated.onnx"
        if not path.exists():
            path.write_bytes(simulation_of(self.runtime, qdq.read_bytes()))
        return path
