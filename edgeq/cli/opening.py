"""From a path to the subject of a command: a bundle's folder or a model file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgeq.bundle.read import Bundle, open_bundle
from edgeq.cli.console import Console
from edgeq.cli.extras import require_host
from edgeq.cli.plain import PlainModel
from edgeq.cli.subject import Specs, Subject
from edgeq.errors import SpecError
from edgeq.files import size_mb
from edgeq.model.presets import SpecOverrides
from edgeq.runtimes import load_runtime
from edgeq.runtimes.options import chosen_options

__all__ = ["load_float", "open_subject"]


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
            plain = PlainModel.open(path, overrides or SpecOverrides())
            found = None
            if float_source is not None:
                found = load_float(float_source, Path(folder), plain.overrides_for(float_source), console)
            yield _with_options(_from_file(plain, found, data, console), options or (), console)


def _with_options(subject: Subject, texts: Sequence[str], console: Console) -> Subject:
    chosen = chosen_options(subject.runtime, texts)
    if texts:
        console.note(f"{subject.runtime.name}: {', '.join(texts)}")
    return replace(subject, options=chosen)


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
    plain: PlainModel, found: tuple[Path, Specs] | None, data: Path | None, console: Console
) -> Subject:
    path, session = plain.path, plain.session
    reference, float_specs = found or (None, None)
    console.warn_of_session(path.name, session.details)
    specs, unknown = None, ""
    try:
        told = plain.recognised(data) if float_specs is None else float_specs.fitted(session)
        specs = plain.with_units(told, console)
    except SpecError as error:
        unknown = str(error)
    return Subject(
        name=path.stem,
        artifact=path,
        size_mb=size_mb(path),
        runtime=plain.runtime,
        bundle=None,
        reference=reference,
        float_artifact=None,
        specs=specs,
        unknown=unknown,
        reference_specs=float_specs,
    )
