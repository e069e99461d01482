"""Write a bundle: whole or not at all, and the same bytes for the same contents, the time stamp apart."""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeq import __version__
from edgeq.bundle.check import MANIFEST, check_name
from edgeq.bundle.manifest import (
    CalibrationImage,
    CalibrationList,
    FileEntry,
    FileRole,
    Manifest,
    SourceModel,
    manifest_bytes,
)
from edgeq.bundle.read import Bundle, open_bundle
from edgeq.errors import InputError
from edgeq.files import new_folder, sha256_of
from edgeq.report.jsonio import dumps, to_jsonable
from edgeq.types import HeadSpec, InputSpec, PostProcess

__all__ = ["BundleContents", "ContentFile", "calibration_list", "source_model", "write_bundle"]

RECIPE = "recipe.toml"
LABELS = "labels.txt"


@dataclass(frozen=True)
class ContentFile:
    """A file to go into the bundle."""

    name: str
    """Its name in the bundle: ``model.qdq.onnx``, ``reference/float.onnx``."""
    role: FileRole
    content: Path | bytes
    """A file to copy, or the bytes."""


@dataclass(frozen=True)
class BundleContents:
    """All that a bundle is made of; recipe, labels and reports become files by themselves."""

    name: str
    target: str
    runtime: str
    artifact: str
    """Name of the artifact among the files."""
    files: tuple[ContentFile, ...]
    """Artifact, QDQ model (where it is not the artifact), reference."""
    recipe_toml: str
    source: SourceModel
    calibration: CalibrationList | None
    input: InputSpec
    head: HeadSpec
    postprocess: PostProcess | None
    """None for classifiers."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of python, numpy, onnx, the runtime, ...; edgeq's own is added."""
    plan: Mapping[str, object] = field(default_factory=dict)
    reports: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """By name; each becomes ``reports/NAME.json``."""
    created_at: str | None = None
    """UTC, ISO 8601. None: SOURCE_DATE_EPOCH where it is set (reproducible-builds.org), else now."""


def source_model(path: Path) -> SourceModel:
    """Name, size and digest of the user's model file."""
    return SourceModel(name=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def calibration_list(origin: str, images: Sequence[tuple[str, str]]) -> CalibrationList:
    """The record of the calibration images.

    Args:
        origin: what the user named.
        images: (key, SHA-256 of the file) in the order in which they were used.
    """
    text = "".join(f"{digest}  {key}\n" for key, digest in images)
    return CalibrationList(
        origin=origin,
        images=tuple(CalibrationImage(key=key, sha256=digest) for key, digest in images),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def write_bundle(folder: Path, contents: BundleContents, *, force: bool = False) -> Bundle:
    """Write the bundle and open it.

    Args:
        folder: to be made.
        contents: what goes in.
        force: an earlier bundle there is replaced.

    Raises:
        OutputError: the folder exists, or the disk is full; nothing is left behind.
        InputError: contents that contradict (artifact not among the files, a name twice, a bad name).
    """
    files = _all_files(contents)
    need_bytes = sum(_size(entry.content) for entry in files)
    with new_folder(folder, force=force, need_bytes=need_bytes) as temporary:
        entries = {entry.name: _write_file(temporary, entry) for entry in files}
        manifest = _manifest(contents, entries)
        (temporary / MANIFEST).write_bytes(manifest_bytes(manifest))
        open_bundle(temporary)
    return open_bundle(folder, verify=False)


def _all_files(contents: BundleContents) -> tuple[ContentFile, ...]:
    # One line each, also for a class name that the source model has a line break in.
    labels = "".join(f"{' '.join(name.splitlines())}\n" for name in contents.head.class_names)
    files = [
        *contents.files,
        ContentFile(RECIPE, FileRole.RECIPE, contents.recipe_toml.encode()),
        ContentFile(LABELS, FileRole.LABELS, labels.encode()),
        *(
            ContentFile(f"reports/{name}.json", FileRole.REPORT, dumps(data).encode())
            for name, data in sorted(contents.reports.items())
        ),
    ]
    names = [entry.name for entry in files]
    for name in names:
        check_name(name)
    if len(set(names)) != len(names) or MANIFEST in names:
        raise InputError(f"a bundle's files need names that differ, and none is {MANIFEST}: {names}")
    inside = f"{contents.artifact}/"
    if not any(
        entry.role is FileRole.ARTIFACT and (entry.name == contents.artifact or entry.name.startswith(inside))
        for entry in files
    ):
        raise InputError(f"the artifact {contents.artifact!r} is not among the bundle's files")
    return tuple(files)


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _write_file(folder: Path, entry: ContentFile) -> FileEntry:
    path = folder / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(entry.content, bytes):
        path.write_bytes(entry.content)
    else:
        shutil.copyfile(entry.content, path)
    return FileEntry(role=entry.role, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _manifest(contents: BundleContents, entries: Mapping[str, FileEntry]) -> Manifest:
    return Manifest(
        edgeq=__version__,
        created_at=contents.created_at or _now(),
        name=contents.name,
        target=contents.target,
        runtime=contents.runtime,
        task=contents.head.task,
        artifact=contents.artifact,
        files=dict(entries),
        source=contents.source,
        recipe_sha256=entries[RECIPE].sha256,
        calibration=contents.calibration,
        input=contents.input,
        head=contents.head,
        postprocess=contents.postprocess,
        versions={**contents.versions, "edgeq": __version__},
        plan=to_jsonable(dict(contents.plan)),
    )


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    utc = datetime.timezone.utc
    moment = (
        datetime.datetime.fromtimestamp(int(epoch), utc) if epoch.isdigit() else datetime.datetime.now(utc)
    )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
