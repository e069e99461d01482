"""What a command is about: a bundle, or a plain model with an optional float model beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq.bundle.read import Bundle, open_bundle
from edgeq.cli.console import Console
from edgeq.cli.extras import require_host
from edgeq.errors import ModelError, SpecError
from edgeq.model.presets import SpecOverrides
from edgeq.runtimes import load_runtime, runtime_for
from edgeq.runtimes.base import Runtime, Session, SessionOptions
from edgeq.types import HeadSpec, InputSpec, PostProcess

__all__ = ["Specs", "Subject", "load_float", "open_subject"]


@dataclass(frozen=True)
class Specs:
    """How to feed a model and how to read it."""

    input: InputSpec
    head: HeadSpec


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
) -> Iterator[Subject]:
    """The bundle or model at a path; temporary files of it are gone when the block ends.

    Args:
        path: a bundle's folder or a model file.
        console: told what was recognised.
        overrides: what the user says of a plain model or of ``float_source``.
        float_source: float model to compare with; goes before a bundle's own.
        installed: a bundle's runtime has to be here; not where only a device runs it.

    Raises:
        BundleError: damaged, or not a bundle.
        ModelError: not a model.
        UnavailableError: its runtime is not here.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        reference, float_specs = None, None
        if float_source is not None:
            reference, float_specs = load_float(float_source, Path(folder), overrides, console)
        if path.is_dir():
            yield _from_bundle(open_bundle(path), reference, console, installed=installed)
        else:
            yield _from_file(path, reference, float_specs, overrides or SpecOverrides())


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
    )


def _from_file(
    path: Path, reference: Path | None, float_specs: Specs | None, overrides: SpecOverrides
) -> Subject:
    if not path.exists():
        raise ModelError(f"there is no bundle or model at {path}", fix="check the path")
    runtime = runtime_for(path)
    session = runtime.open_session(path, options=SessionOptions())
    specs, unknown = float_specs, ""
    try:
        specs = _recognised(path, session, overrides) if specs is None else _fitting(specs, session, path)
    except SpecError as error:
        unknown = str(error)
    return Subject(
        name=path.stem,
        artifact=path,
        size_mb=path.stat().st_size / 1e6,
        runtime=runtime,
        bundle=None,
        reference=reference,
        float_artifact=None,
        specs=None if unknown else specs,
        unknown=unknown,
    )


def _recognised(path: Path, session: Session, overrides: SpecOverrides) -> Specs:
    """Specs from what a model says about itself, its spec file and the user."""
    from edgeq.model.recognise import recognise
    from edgeq.model.specfile import find_spec_file, load_spec_file, merge

    beside = find_spec_file(path)
    given = overrides if beside is None else merge(overrides, load_spec_file(beside))
    metadata = getattr(session, "metadata", {})
    found = recognise(inputs=session.inputs, outputs=session.outputs, metadata=metadata, overrides=given)
    return Specs(found.input, found.head)


def _fitting(specs: Specs, session: Session, path: Path) -> Specs:
    """The float model's specs for another form of the same model.

    Raises:
        SpecError: its input or outputs are not the float model's.
    """
    tensor = session.inputs[0]
    sizes = zip(tensor.shape, specs.input.shape, strict=False)
    if len(tensor.shape) != 4 or any(isinstance(own, int) and own not in (size, -1) for own, size in sizes):
        raise SpecError(
            f"{path.name} takes an input of {list(tensor.shape)}, the float model one of "
            f"{list(specs.input.shape)}",
            fix="give the float model that it was made from",
        )
    names = [info.name for info in session.outputs]
    head = specs.head
    if head.output not in names:
        if len(names) != 1:
            raise SpecError(
                f"{path.name} has no output {head.output!r}, only {', '.join(names)}",
                fix="name the one that holds the predictions: --output-name",
            )
        head = replace(head, output=names[0])
    return Specs(replace(specs.input, name=tensor.name), head)
