"""What a command is about: a bundle, or a plain model with an optional float model beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeq.bundle.read import Bundle, open_bundle
from edgeq.cli.console import Console
from edgeq.cli.extras import require_host
from edgeq.errors import DataError, ModelError, SpecError, UnavailableError
from edgeq.model.fitting import fit_specs
from edgeq.model.presets import SpecOverrides
from edgeq.runtimes import load_runtime, missing_modules, runs_here, runtime_for, simulation_of
from edgeq.runtimes.base import Runtime, Session, SessionOptions
from edgeq.runtimes.options import chosen_options
from edgeq.types import HeadSpec, InputSpec, PostProcess

__all__ = ["Runner", "Specs", "Subject", "load_float", "open_subject"]


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

    @property
    def post(self) -> PostProcess | None:
        """The post-processing that the bundle records."""
        return None if self.bundle is None else self.bundle.manifest.postprocess


@contextmanager
def open_subject(
    path: Path,
    *,
    console: Console,
    overrides: SpecOverrides | None = None,
    float_source: Path | None = None,
    installed: bool = True,
    data: Path | None = None,
    options: Sequence[str] | None = None,
) -> Iterator[Subject]:
    """The bundle or model at a path; temporary files of it are gone when the block ends.

    Args:
        path: a bundle's folder or a model file.
        console: told what was recognised.
        overrides: what the user says of a plain model or of ``float_source``.
        float_source: float model to compare with; goes before a bundle's own.
        installed: a bundle's runtime has to be here; not where only a device runs it.
        data: data set that is going to judge it; names the classes of a plain model that does not.
        options: of the runtime, ``NAME=VALUE`` each.

    Raises:
        BundleError: damaged, or not a bundle.
        ModelError: not a model.
        InputError: its runtime has no such option.
        UnavailableError: its runtime is not here.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        if path.is_dir() and path.suffix != ".mlpackage":
            bundle = open_bundle(path)
            reference = None
            if float_source is not None:
                reference, _ = load_float(float_source, Path(folder), overrides, console)
            subject = _from_bundle(bundle, reference, console, installed=installed)
            subject = replace(subject, scratch=Path(folder))
            yield _with_options(subject, options or (), console)
        else:
            plain = _PlainModel.open(path, overrides or SpecOverrides())
            found = None
            if float_source is not None:
                found = load_float(float_source, Path(folder), plain.overrides_for(float_source), console)
            yield _with_options(_from_file(plain, found, data, console), options or (), console)


def _with_options(subject: Subject, texts: Sequence[str], console: Console) -> Subject:
    chosen = chosen_options(subject.runtime, texts)
    if texts:
        console.note(f"{subject.runtime.name}: {', '.join(texts)}")
    return replace(subject, options=chosen)


@dataclass(frozen=True)
class _PlainModel:
    """A model file without a bundle around it, opened."""

    path: Path
    runtime: Runtime
    session: Session
    overrides: SpecOverrides

    @classmethod
    def open(cls, path: Path, overrides: SpecOverrides) -> _PlainModel:
        if not path.exists():
            raise ModelError(f"there is no bundle or model at {path}", fix="check the path")
        runtime = runtime_for(path)
        return cls(path, runtime, runtime.open_session(path, options=SessionOptions()), overrides)

    def overrides_for(self, float_source: Path) -> SpecOverrides:
        """What the user says, and for a checkpoint of no fixed size the size of this model.

        What is said of the layout and of the units of boxes is said of this model, not of the float one.
        """
        given = replace(self.overrides, layout=None, normalized_boxes=None)
        if float_source.suffix.lower() != ".pt" or given.size is not None:
            return given
        shape = self.session.inputs[0].shape
        sides = shape[1:3] if len(shape) == 4 and shape[3] == 3 else shape[2:4]
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            return given
        height, width = (int(side) for side in sides if isinstance(side, int))
        return replace(given, size=(height, width))


def load_float(
    source: Path, folder: Path, overrides: SpecOverrides | None, console: Console
) -> tuple[Path, Specs]:
    """The float model of a source as a file in ``folder``, and its specs.

    Raises:
        ModelError: not a model.
        SpecError: input or head are not told.
    """
    require_host(f"reading the float model {source}")
    from edgeq.model.source import load

    model = load(source, overrides=overrides)
    for note in model.notes:
        console.note(f"  {note}")
    path = folder / "float.onnx"
    path.write_bytes(model.onnx_bytes)
    return path, Specs(model.input, model.head)


def _from_bundle(bundle: Bundle, reference: Path | None, console: Console, *, installed: bool) -> Subject:
    manifest = bundle.manifest
    for name in bundle.unexpected:
        console.warn(f"{bundle.folder} holds a file that its manifest does not know: {name}")
    return Subject(
        name=manifest.name,
        artifact=bundle.artifact_path,
        size_mb=bundle.artifact_size_mb,
        runtime=load_runtime(manifest.runtime, installed=installed),
        bundle=bundle,
        reference=reference or bundle.reference_path,
        float_artifact=None if reference is not None else bundle.float_artifact_path,
        specs=Specs(manifest.input, manifest.head),
        label=str(manifest.plan.get("precision", "int8"))[:16],
    )


def _from_file(
    plain: _PlainModel, found: tuple[Path, Specs] | None, data: Path | None, console: Console
) -> Subject:
    path, session = plain.path, plain.session
    reference, float_specs = found or (None, None)
    warning = session.details.get("warning")
    if warning:
        console.warn(f"{path.name}: {warning}")
    specs, unknown = None, ""
    try:
        recognised = _recognised(plain, data) if float_specs is None else float_specs.fitted(session)
        specs = _with_units(recognised, plain, console)
    except SpecError as error:
        unknown = str(error)
    return Subject(
        name=path.stem,
        artifact=path,
        size_mb=_bytes_of(path) / 1e6,
        runtime=plain.runtime,
        bundle=None,
        reference=reference,
        float_artifact=None,
        specs=specs,
        unknown=unknown,
        reference_specs=float_specs,
    )


def _bytes_of(path: Path) -> int:
    """Of a file, or of all files of a model that is a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _recognised(plain: _PlainModel, data: Path | None) -> Specs:
    """Specs from what a model says of itself, its spec file, the user and, for class names, the data set."""
    from edgeq.model.recognise import recognise
    from edgeq.model.specfile import find_spec_file, load_spec_file, merge

    beside = find_spec_file(plain.path)
    given = plain.overrides if beside is None else merge(plain.overrides, load_spec_file(beside))
    session = plain.session
    metadata = getattr(session, "metadata", {})

    def read(overrides: SpecOverrides) -> Specs:
        found = recognise(
            inputs=session.inputs, outputs=session.outputs, metadata=metadata, overrides=overrides
        )
        return Specs(found.input, found.head)

    if given.class_names is not None or "names" in metadata or data is None:
        return read(given)
    try:
        return read(replace(given, class_names=_names_of(data)))
    except (SpecError, DataError):  # not the classes of this model: it is for it alone to say what fits
        return read(given)


def _names_of(data: Path) -> tuple[str, ...] | None:
    """Class names of a data set; None where it has none."""
    from edgeq.data.dataset import open_dataset

    return open_dataset(data, labels_required=False).class_names or None


def _with_units(specs: Specs, plain: _PlainModel, console: Console) -> Specs:
    """The specs with boxes in the units that the model really gives."""
    from edgeq.model.box_units import measure_normalized_boxes

    said = plain.overrides.normalized_boxes
    if said is not None:
        return replace(specs, head=replace(specs.head, normalized_boxes=said))
    measured = measure_normalized_boxes(plain.session.infer, spec=specs.input, head=specs.head)
    if measured is None or measured == specs.head.normalized_boxes:
        return specs
    console.note(f"{plain.path.name} gives boxes in {'0..1 of its input' if measured else 'pixels'}")
    return replace(specs, head=replace(specs.head, normalized_boxes=measured))
