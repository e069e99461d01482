"""What an ``.mlpackage`` folder holds, checked before anything parses it. Device side: standard library.

A package from elsewhere is untrusted: no links, nothing but the files that an mlprogram has, sizes bounded.
"""

from __future__ import annotations

import json
import os
import stat
import uuid
from pathlib import Path

from edgeq.errors import ModelError

__all__ = [
    "METADATA_NAME", "MODEL_FILE", "WEIGHTS_FILE", "check_package", "name_items_after_content",
    "package_files",
]  # fmt: skip

METADATA_NAME = "edgeq"
"""Key of the user-defined metadata with edgeq's own JSON: source names of outputs and layers, precision."""
MODEL_FILE = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS_FILE = "Data/com.apple.CoreML/weights/weight.bin"
_MANIFEST = "Manifest.json"
_LIMITS_BYTES = {_MANIFEST: 1 << 20, MODEL_FILE: 256 << 20}
_WEIGHTS_LIMIT_BYTES = 4 << 30
_MOST_FILES = 64
_NAMESPACE = uuid.UUID("5f1d3c1e-6f4b-5b52-9c55-0a4c4f3b8f5e")
_FIX = "write the package anew with 'edgeq quantize', or copy it again as a whole folder"


def package_files(path: Path) -> tuple[Path, ...]:
    """Its files in a fixed order.

    Raises:
        ModelError: a link or something else that is no plain file, or too many files.
    """
    found: list[Path] = []
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            entry = Path(folder) / name
            mode = entry.lstat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise ModelError(f"{entry} is neither a file nor a folder of its own", fix=_FIX)
        found += [Path(folder) / name for name in names]
        if len(found) > _MOST_FILES:
            raise ModelError(f"{path} has over {_MOST_FILES} files: no Core ML package", fix=_FIX)
    return tuple(sorted(found))


def check_package(path: Path) -> None:
    """Return if a folder looks like a package with one mlprogram.

    Raises:
        ModelError: it does not; says what is missing or too large.
    """
    if not path.exists():
        raise ModelError(f"no model file at {path}", fix="check the path")
    if path.is_symlink() or not path.is_dir():
        raise ModelError(f"{path} is no Core ML package: a package is a folder", fix=_FIX)
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in package_files(path)}
    for name in _LIMITS_BYTES:
        if not sizes.get(name):
            raise ModelError(f"{path} is no Core ML package: {name} is missing or empty", fix=_FIX)
    for name, size in sizes.items():
        limit = _LIMITS_BYTES.get(name, _WEIGHTS_LIMIT_BYTES)
        if size > limit:
            raise ModelError(f"{path}: {name} has {size} bytes, more than the {limit} it may have", fix=_FIX)
    _check_manifest(path)


def _check_manifest(path: Path) -> None:
    try:
        content = json.loads((path / _MANIFEST).read_bytes())
        entries = content["itemInfoEntries"]
        root = entries[content["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: its {_MANIFEST} is damaged", fix=_FIX) from error
    if f"Data/{root}" != MODEL_FILE:
        raise ModelError(f"{path}: its model is at {root!r}, not at {MODEL_FILE}", fix=_FIX)
    for entry in entries.values():
        place = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(place, str) or place.startswith("/") or ".." in Path(place).parts:
            raise ModelError(f"{path}: its {_MANIFEST} points outside the package", fix=_FIX)


def name_items_after_content(path: Path) -> None:
    """Make a new package the same bytes each time: coremltools gives its items random identifiers."""
    manifest = path / _MANIFEST
    text = manifest.read_text()
    for identifier, entry in json.loads(text)["itemInfoEntries"].items():
        text = text.replace(identifier, str(uuid.uuid5(_NAMESPACE, entry["path"])).upper())
    ordered = json.loads(text)
    ordered["itemInfoEntries"] = dict(sorted(ordered["itemInfoEntries"].items()))
    manifest.write_text(json.dumps(ordered, separators=(",", ":")))
