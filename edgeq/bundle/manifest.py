"""``manifest.json``: what a bundle is, where it comes from, and the digest of every file in it."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from edgeq.bundle.check import FORMAT, MAX_FILES, SCHEMA, FileDigest
from edgeq.errors import BundleError
from edgeq.types import HeadSpec, InputSpec, PostProcess, Task

__all__ = [
    "CalibrationImage",
    "CalibrationList",
    "FileEntry",
    "FileRole",
    "Manifest",
    "SourceModel",
    "manifest_bytes",
    "parse_manifest",
]

_MAX_SIDE_PX = 1 << 14


class FileRole(str, Enum):
    """What a file of the bundle is for."""

    ARTIFACT = "artifact"
    """What the runtime loads: goes to the device."""
    QDQ = "qdq"
    """The QDQ model, where it is not the artifact itself."""
    REFERENCE = "reference"
    """The float model for comparisons: stays on the host unless a comparison runs on the device."""
    RECIPE = "recipe"
    LABELS = "labels"
    REPORT = "report"


class _Strict(BaseModel):
    # Forbidden, not ignored: an unknown key is a newer meaning, and that is what the schema number is for.
    model_config = ConfigDict(extra="forbid", frozen=True)


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=4096)]


class FileEntry(_Strict):
    """One file."""

    role: FileRole
    sha256: Sha256
    size_bytes: Size

    @property
    def digest(self) -> FileDigest:
        """What the check compares."""
        return FileDigest(self.sha256, self.size_bytes)


class SourceModel(_Strict):
    """The user's model file."""

    name: Text
    sha256: Sha256
    size_bytes: Size


class CalibrationImage(_Strict):
    """One calibration image."""

    key: Text
    """`edgeq.types.Sample.key`."""
    sha256: Sha256


class CalibrationList(_Strict):
    """The images that the ranges come from."""

    origin: Text
    images: tuple[CalibrationImage, ...]
    sha256: Sha256
    """Of the list: the lines ``SHA256  KEY`` in order."""


class Manifest(_Strict):
    """The whole manifest; ``format`` and ``schema`` come first in the file."""

    format: Literal["edgeq-bundle"] = FORMAT
    schema_version: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    edgeq: Text
    """Version of edgeq that wrote the bundle."""
    created_at: Text
    """UTC, ISO 8601: the only part that differs between two equal bundles."""
    name: Text
    target: Text
    runtime: Text
    task: Task
    artifact: Text
    """Name of the artifact among the files; of its folder where it is one (``.mlpackage``)."""
    files: Annotated[dict[str, FileEntry], Field(max_length=MAX_FILES)]
    source: SourceModel
    recipe_sha256: Sha256
    calibration: CalibrationList | None
    input: InputSpec
    head: HeadSpec
    postprocess: PostProcess | None
    versions: dict[str, Text]
    plan: dict[str, JsonValue]
    """Summary of the plan: counts, layers kept in float and why."""

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        inside = self.artifact.rstrip("/") + "/"
        parts = [name for name in self.files if name == self.artifact or name.startswith(inside)]
        if not any(self.files[name].role is FileRole.ARTIFACT for name in parts):
            raise ValueError(f"artifact {self.artifact!r} is not among the files")
        if not (0 < self.input.height_px <= _MAX_SIDE_PX and 0 < self.input.width_px <= _MAX_SIDE_PX):
            raise ValueError(f"input of {self.input.width_px} x {self.input.height_px} pixels")
        if any(value == 0 for value in self.input.std):
            raise ValueError("input std of 0")
        if self.head.task is not self.task:
            raise ValueError(f"head {self.head.family.value} does not serve task {self.task.value}")
        return self

    @property
    def digests(self) -> dict[str, FileDigest]:
        """What the check of files compares."""
        return {name: entry.digest for name, entry in self.files.items()}


def parse_manifest(data: dict[str, Any], *, where: str) -> Manifest:
    """The checked manifest.

    Args:
        data: from `edgeq.bundle.check.load_manifest_json`.
        where: the file, for the message.

    Raises:
        BundleError: something in it is missing or wrong.
    """
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "manifest"
        raise BundleError(f"{where} is damaged: {field}: {problem['msg']}") from error


def manifest_bytes(manifest: Manifest) -> bytes:
    """The file's content: same manifest, same bytes; keys of objects sorted, the fields in their order."""
    data = manifest.model_dump(mode="json", by_alias=True)
    data["files"] = dict(sorted(data["files"].items()))
    data["versions"] = dict(sorted(data["versions"].items()))
    data["plan"] = json.loads(json.dumps(data["plan"], sort_keys=True))
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
