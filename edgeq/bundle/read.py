"""Open a bundle, checked; add reports to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.bundle.check import (
    MANIFEST,
    FileDigest,
    check_file,
    check_files,
    check_name,
    load_manifest_json,
    unexpected_files,
)
from edgeq.bundle.manifest import FileEntry, FileRole, Manifest, manifest_bytes, parse_manifest
from edgeq.errors import BundleError, InputError, OutputError
from edgeq.files import atomic_write
from edgeq.report.jsonio import dumps

__all__ = ["Bundle", "add_page", "add_report", "open_bundle"]

_REPORT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PAGE = "report.html"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str
    """SHA-256 of manifest.json: covers every file through its digest, so it is what a detached signature
    signs (``manifest.sig`` beside it is the place for one; edgeq does not sign by itself)."""
    unexpected: tuple[str, ...] = ()
    """Files in the folder that the manifest does not know; never used."""

    @property
    def artifact_path(self) -> Path:
        """What the runtime loads."""
        return self.folder / self.manifest.artifact

    @property
    def qdq_path(self) -> Path | None:
        """The QDQ model: a file of its own, or the artifact where the runtime loads QDQ ONNX."""
        separate = self.paths(FileRole.QDQ)
        if separate:
            return separate[0]
        return self.artifact_path if self.artifact_path.name.endswith(".qdq.onnx") else None

    @property
    def reference_path(self) -> Path | None:
        """The float model as ONNX, for comparisons; None where the bundle came without."""
        found = [path for path in self.paths(FileRole.REFERENCE) if path.suffix == ".onnx"]
        return found[0] if found else None

    @property
    def float_artifact_path(self) -> Path | None:
        """The float model in the form that the bundle's runtime loads; None where there is none."""
        suffix = self.artifact_path.suffix
        for path in self.paths(FileRole.REFERENCE):
            for part in (path, *path.parents):
                if part == self.folder:
                    break
                if part.suffix == suffix:
                    return part
        return None

    def paths(self, role: FileRole) -> tuple[Path, ...]:
        """Files of a role, by name."""
        entries = sorted(self.manifest.files.items())
        return tuple(self.folder / name for name, entry in entries if entry.role is role)

    @property
    def artifact_size_mb(self) -> float:
        """Size of what is shipped, MB of 10^6 bytes."""
        entries = self.manifest.files.values()
        return sum(entry.size_bytes for entry in entries if entry.role is FileRole.ARTIFACT) / 1e6

    @property
    def report_names(self) -> tuple[str, ...]:
        """Names of the JSON reports."""
        names = [name for name, entry in self.manifest.files.items() if entry.role is FileRole.REPORT]
        return tuple(sorted(Path(name).stem for name in names if name.endswith(".json")))

    def report(self, name: str) -> dict[str, Any] | None:
        """A report's data, its digest checked again; None: there is none of that name.

        Raises:
            BundleError: the file was changed, or is not a JSON object.
        """
        relative = f"reports/{name}.json"
        entry = self.manifest.files.get(relative)
        if entry is None:
            return None
        path = check_file(self.folder, relative, entry.digest)
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{path} is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise BundleError(f"{path} is not a JSON object")
        return data


def open_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """The bundle in a folder, everything in it checked first.

    Args:
        path: the folder.
        verify: check size and SHA-256 of every file. Without, only the manifest is checked, and names.

    Raises:
        BundleError: not a bundle, from a newer edgeq, damaged or tampered with; names the file.
    """
    data, content = load_manifest_json(path)
    manifest = parse_manifest(data, where=str(path / MANIFEST))
    if not any(entry.role is FileRole.RECIPE for entry in manifest.files.values()):
        raise BundleError(f"{path} has no recipe among its files")
    digests = manifest.digests
    unexpected = check_files(path, digests) if verify else _names_only(path, digests)
    return Bundle(path, manifest, hashlib.sha256(content).hexdigest(), unexpected)


def add_report(bundle: Bundle, name: str, data: Mapping[str, object]) -> Bundle:
    """The bundle with ``reports/NAME.json`` in it; one of that name is replaced.

    Raises:
        InputError: the name is not plain.
        OutputError: the folder is not writable, or the disk is full; the bundle stays as it was.
    """
    if not _REPORT_NAME.fullmatch(name):
        raise InputError(f"report name {name!r} is not plain: small letters, digits, '-', '_' and '.'")
    return _add(bundle, f"reports/{name}.json", dumps(data).encode())


def add_page(bundle: Bundle, html: str) -> Bundle:
    """The bundle with ``report.html`` in it; an earlier one is replaced.

    Raises:
        OutputError: the folder is not writable, or the disk is full; the bundle stays as it was.
    """
    return _add(bundle, _PAGE, html.encode())


def _add(bundle: Bundle, name: str, content: bytes) -> Bundle:
    """Add or replace one file in steps of which each leaves a bundle that verifies.

    A file that is replaced is first taken out of the manifest: between its rename and the manifest's, a
    cut would otherwise leave a digest that does not fit. The manifest is read anew, so that a report
    added by another command meanwhile is kept.
    """
    folder = bundle.folder
    manifest = open_bundle(folder, verify=False).manifest
    entry = FileEntry(
        role=FileRole.REPORT, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
    )
    others = {key: value for key, value in manifest.files.items() if key != name}
    target = folder / name
    if target.parent.is_symlink() or target.is_symlink():
        raise BundleError(f"{name!r} in {folder} is or goes through a symbolic link: not followed")
    if manifest.files.get(name) not in (None, entry):
        atomic_write(folder / MANIFEST, manifest_bytes(manifest.model_copy(update={"files": others})))
    try:
        target.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent} cannot be made: {error.strerror}") from error
    atomic_write(target, content)
    updated = manifest.model_copy(update={"files": {**others, name: entry}})
    text = manifest_bytes(updated)
    atomic_write(folder / MANIFEST, text)
    unexpected = unexpected_files(folder, updated.digests)
    return Bundle(folder, updated, hashlib.sha256(text).hexdigest(), unexpected)


def _names_only(folder: Path, digests: Mapping[str, FileDigest]) -> tuple[str, ...]:
    for name in digests:
        check_name(name)
    return unexpected_files(folder, digests)
