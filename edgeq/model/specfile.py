"""``MODEL.edgeq.toml`` beside a model: what its owner knows about input and head, in a small file.

::

    family = "yolov5"
    class_names = ["bolt", "nut"]
    size = [416, 416]            # height, width in pixels; one number for a square
    color = "rgb"
    mean = 0                     # 0..255 units; one number for all channels
    std = 255
    resize = "letterbox-center"

Every key is a field of `SpecOverrides`; all may be left out.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from edgeq.errors import SpecError
from edgeq.model.presets import PRESETS, SpecOverrides
from edgeq.types import ColorOrder, HeadFamily, Layout, ResizeRule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["SPEC_FILE_SUFFIX", "find_spec_file", "load_spec_file", "merge"]

SPEC_FILE_SUFFIX = ".edgeq.toml"

_Pixels = Annotated[int, Field(gt=0, le=16384)]
_Byte = Annotated[int, Field(ge=0, le=255)]
_Spread = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Level = Annotated[float, Field(allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1)]


def _repeat(count: int) -> BeforeValidator:
    """One number stands for ``count`` equal ones."""

    def spread(value: object) -> object:
        return [value] * count if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    return BeforeValidator(spread)


class _SpecFile(BaseModel):
    """The file as a person writes it; its fields are those of `SpecOverrides`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: HeadFamily | None = None
    output: _Name | None = None
    class_names: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    size: Annotated[tuple[_Pixels, _Pixels], _repeat(2)] | None = None
    layout: Layout | None = None
    color: ColorOrder | None = None
    mean: Annotated[tuple[_Level, _Level, _Level], _repeat(3)] | None = None
    std: Annotated[tuple[_Spread, _Spread, _Spread], _repeat(3)] | None = None
    resize: ResizeRule | None = None
    pad_value: _Byte | None = None
    short_side_px: _Pixels | None = None
    strides: Annotated[tuple[_Pixels, ...], Field(min_length=1)] | None = None
    normalized_boxes: bool | None = None
    preset: _Name | None = None

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS:
            raise ValueError(f"there is no preset {value!r}; use one of {', '.join(PRESETS)}")
        return value


def find_spec_file(model_path: Path) -> Path | None:
    """The spec file of a model: ``yolo.onnx`` has ``yolo.edgeq.toml``, or ``yolo.onnx.edgeq.toml``."""
    candidates = (
        model_path.with_suffix(SPEC_FILE_SUFFIX),
        model_path.with_name(model_path.name + SPEC_FILE_SUFFIX),
    )
    return next((path for path in candidates if path.is_file()), None)


def load_spec_file(path: Path) -> SpecOverrides:
    """What a spec file says.

    Raises:
        SpecError: the file cannot be read, is not TOML, or has unknown keys or impossible values.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as TOML: {error}") from error
    try:
        parsed = _SpecFile.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{path}: " + "; ".join(map(_problem, error.errors()))) from error
    return SpecOverrides(**{field.name: getattr(parsed, field.name) for field in fields(SpecOverrides)})


def merge(flags: SpecOverrides, file: SpecOverrides) -> SpecOverrides:
    """Both together; where both speak, the flags win.

    A preset among the flags also goes before the file's single values that the preset stands for: who
    types ``--preset yolox`` does not want half of another one.
    """
    if flags.preset is not None:
        file = replace(file, color=None, mean=None, std=None, resize=None, short_side_px=None)
    return replace(file, **_given(flags))


def _given(overrides: SpecOverrides) -> dict[str, Any]:
    """Fields that are set."""
    values = {field.name: getattr(overrides, field.name) for field in fields(overrides)}
    return {name: value for name, value in values.items() if value is not None}


def _problem(error: Any) -> str:
    """One of pydantic's errors in words, with the nearest key or value."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place, _SpecFile.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_SpecFile.model_fields)}"
        return f"unknown key {place!r}, {hint}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place} = {error['input']!r}: {message[:1].lower()}{message[1:]}"
