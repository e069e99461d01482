"""Trust in a bundle's files, before anything in them is used; standard library only, for the device side.

A bundle comes from anywhere. So its manifest is bounded in size, its file names may only lead to plain
files inside the folder, and every file must have the size and the SHA-256 that the manifest says.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from edgeq.errors import BundleError
from edgeq.files import sha256_of

__all__ = [
    "FORMAT",
    "MANIFEST",
    "SCHEMA",
    "FileDigest",
    "check_file",
    "check_files",
    "check_name",
    "load_manifest_json",
    "unexpected_files",
]

FORMAT: Final = "edgeq-bundle"
MANIFEST = "manifest.json"
SCHEMA: Final = 1

MAX_MANIFEST_BYTES = 32 << 20
MAX_FILES = 4096
MAX_FILE_BYTES = 16 << 30
_MAX_NAME_CHARS = 240
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Colon: a drive or an alternate stream on Windows. Control characters: a terminal that shows the name.
_BAD_CHARACTERS = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')


@dataclass(frozen=True)
class FileDigest:
    """What the manifest says of one file."""

    sha256: str
    size_bytes: int


def load_manifest_json(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest as plain data, and its bytes (whose SHA-256 is what a signature signs).

    Raises:
        BundleError: not a bundle, manifest damaged, or made by a newer edgeq.
    """
    path = folder / MANIFEST
    if not folder.is_dir() or path.is_symlink() or not path.is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST}",
            fix="give the folder that 'edgeq quantize ... -o FOLDER' made",
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is over {MAX_MANIFEST_BYTES >> 20} MiB: not a manifest of edgeq")
    try:
        data = json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is damaged: {error}", fix="copy the bundle again, or make it anew with 'edgeq quantize'"
        ) from error
    _check_version(data, path)
    return data, content


def _check_version(data: object, path: Path) -> None:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f"{path} is not the manifest of an edgeq bundle")
    version = data.get("schema")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise BundleError(f"{path} is damaged: schema {version!r} is not a version")
    if version > SCHEMA:
        raise BundleError(
            f"{path} has schema {version}, this edgeq reads up to {SCHEMA}: a newer edgeq made the bundle",
            fix="pip install --upgrade edgeq",
        )


def check_name(name: str) -> None:
    """Check that a file's name is a plain relative path with forward slashes, the same on every system.

    Raises:
        BundleError: absolute, leads out of the folder, or has characters that some system treats specially.
    """
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and not part.endswith((" ", ".")) for part in parts)
    if not plain or len(name) > _MAX_NAME_CHARS or _BAD_CHARACTERS.search(name):
        raise BundleError(f"the manifest names {name!r}, which is not a plain path inside the bundle")


def check_file(folder: Path, name: str, digest: FileDigest) -> Path:
    """Path of one file after its check.

    Raises:
        BundleError: bad name, a link, missing, not a plain file, or other content than the manifest says.
    """
    check_name(name)
    if not _SHA256.fullmatch(digest.sha256) or not 0 <= digest.size_bytes <= MAX_FILE_BYTES:
        raise BundleError(f"the manifest's entry for {name!r} has no valid size and SHA-256")
    path = folder
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            raise BundleError(f"{name!r} in {folder} is or goes through a symbolic link: not followed")
    try:
        status = path.lstat()
    except OSError as error:
        raise BundleError(f"{name!r} is missing in {folder}", fix="copy the bundle again") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{name!r} in {folder} is not a plain file")
    if status.st_size != digest.size_bytes:
        raise BundleError(
            f"{name!r} in {folder} has {status.st_size} bytes, the manifest says {digest.size_bytes}",
            fix="copy the bundle again",
        )
    if _hash(path) != digest.sha256:
        raise BundleError(
            f"{name!r} in {folder} was changed: its SHA-256 is not the manifest's",
            fix="copy the bundle again",
        )
    return path


def check_files(folder: Path, digests: Mapping[str, FileDigest]) -> tuple[str, ...]:
    """Check every file of a bundle.

    Returns:
        Names of files that are there and that the manifest does not know: never used, worth a word.

    Raises:
        BundleError: the first file that is wrong, or too many files.
    """
    if len(digests) > MAX_FILES:
        raise BundleError(f"the manifest names {len(digests)} files, more than {MAX_FILES}")
    folded: dict[str, str] = {}
    for name in sorted(digests):
        check_file(folder, name, digests[name])
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise BundleError(f"the manifest names {other!r} and {name!r}, one file on some systems")
    return unexpected_files(folder, digests)


def unexpected_files(folder: Path, digests: Mapping[str, FileDigest]) -> tuple[str, ...]:
    """Names under ``folder`` that the manifest does not know, links included, at most 100."""
    found: list[str] = []
    pending = [folder]
    while pending and len(found) < 100:
        for path in sorted(pending.pop().iterdir()):
            if path.is_dir() and not path.is_symlink():
                pending.append(path)
                continue
            name = path.relative_to(folder).as_posix()
            if name not in digests and name != MANIFEST:
                found.append(name)
    return tuple(sorted(found))


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key twice would let two readers see two manifests."""
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key occurs twice")
    return out


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
