"""Key-value pairs that exporters put into a ``.tflite`` file, as ONNX models carry theirs: text to text.

* edgeq: a metadata buffer ``edgeq``, JSON with ``source``, the pairs of the ONNX model, and ``nodes``,
  tensor name -> name and op of the source node, and ``tail``, the file that goes on from the outputs.
* Ultralytics: a zip archive behind the flatbuffer with ``metadata.json``, earlier ``temp_meta.txt`` with a
  Python literal.
* TFLite Support and others: the same archive with a text file of labels, one a line.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["OWN_NAME", "OwnMetadata", "parse_metadata", "parse_own_metadata", "zip_metadata"]

OWN_NAME = "edgeq"
"""Of the metadata buffer in files that edgeq wrote."""
_MAX_BYTES = 1 << 20
_LABELS = re.compile(r"(.*/)?[^/]*label[^/]*\.txt", re.IGNORECASE)


def parse_metadata(content: bytes) -> Mapping[str, str]:
    """Pairs of a JSON object or a Python literal of a dict; empty where it is neither."""
    if len(content) > _MAX_BYTES:
        return {}
    text = content.decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        try:
            data = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return {}
    return {str(key): _as_text(value) for key, value in data.items()} if isinstance(data, dict) else {}


@dataclass(frozen=True)
class OwnMetadata:
    """What the buffer in edgeq's own files says."""

    source: Mapping[str, str] = field(default_factory=dict)
    """Key-value pairs of the ONNX model."""
    nodes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Tensor name -> name and op of the source node."""
    tail: str = ""
    """Name of the file beside it that makes the source's outputs of this one's; empty: there is none."""


def parse_own_metadata(content: bytes) -> OwnMetadata:
    """The buffer's content; empty where it is another's."""
    try:
        data = json.loads(content.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return OwnMetadata()
    if not isinstance(data, dict):
        return OwnMetadata()
    source, nodes, tail = data.get("source"), data.get("nodes"), data.get("tail")
    pairs = {str(key): _as_text(value) for key, value in source.items()} if isinstance(source, dict) else {}
    known = {
        str(tensor): (str(entry[0]), str(entry[1]))
        for tensor, entry in (nodes.items() if isinstance(nodes, dict) else ())
        if isinstance(entry, list) and len(entry) == 2
    }
    return OwnMetadata(pairs, known, tail if isinstance(tail, str) else "")


def zip_metadata(path: Path) -> Mapping[str, str]:
    """Pairs from the archive behind a model; empty where there is none or it is damaged.

    The archive is as little to be trusted as the model: only small files are read, and only in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:64]
            first = [name for name in names if name.endswith("metadata.json")]
            others = [name for name in names if name.endswith((".txt", ".json"))]
            for name in [*first, *others]:
                found = parse_metadata(_member(archive, name))
                if found:
                    return found
            labels = [name for name in names if _LABELS.fullmatch(name)]
            return _labels(_member(archive, labels[0])) if labels else {}
    # Whatever a damaged archive raises, the model itself may be whole.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        return {}


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        # One byte more than allowed: parse_metadata then takes nothing rather than a part.
        return file.read(_MAX_BYTES + 1)


def _labels(content: bytes) -> Mapping[str, str]:
    if len(content) > _MAX_BYTES:
        return {}
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return {"names": str(dict(enumerate(lines)))} if lines and all(lines) else {}


def _as_text(value: object) -> str:
    """As Ultralytics writes it into ONNX: strings as they are, all else as a Python literal."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value and all(str(key).isdecimal() for key in value):
        # JSON knows text keys only.
        value = {int(key): entry for key, entry in value.items()}
    return str(value)
