"""Input spec, head spec and post-processing out of plain JSON: what pydantic does on the host, without it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from edgeq.errors import SpecError
from edgeq.types import ColorOrder, HeadFamily, HeadSpec, InputSpec, Layout, PostProcess, ResizeRule

__all__ = ["head_spec", "input_spec", "post_process"]

_MAX_SIDE_PX = 1 << 14
_MAX_CLASSES = 1 << 16


def input_spec(data: Any) -> InputSpec:
    """The input spec.

    Raises:
        SpecError: a field is missing or wrong.
    """
    values = _fields(data, InputSpec)
    try:
        spec = InputSpec(
            name=str(values["name"]),
            height_px=int(values["height_px"]),
            width_px=int(values["width_px"]),
            layout=Layout(values["layout"]),
            color=ColorOrder(values["color"]),
            mean=_three(values["mean"]),
            std=_three(values["std"]),
            resize=ResizeRule(values["resize"]),
            pad_value=int(values["pad_value"]),
            short_side_px=None if values["short_side_px"] is None else int(values["short_side_px"]),
        )
    except (TypeError, ValueError) as error:
        raise SpecError(f"the input spec is damaged: {error}") from error
    if not (0 < spec.height_px <= _MAX_SIDE_PX and 0 < spec.width_px <= _MAX_SIDE_PX) or 0 in spec.std:
        raise SpecError("the input spec is damaged: a size or a std is out of range")
    return spec


def head_spec(data: Any) -> HeadSpec:
    """The head spec.

    Raises:
        SpecError: a field is missing or wrong.
    """
    values = _fields(data, HeadSpec)
    try:
        head = HeadSpec(
            family=HeadFamily(values["family"]),
            output=str(values["output"]),
            class_names=tuple(str(name) for name in values["class_names"]),
            strides=tuple(int(stride) for stride in values["strides"]),
            normalized_boxes=bool(values["normalized_boxes"]),
        )
    except (TypeError, ValueError) as error:
        raise SpecError(f"the head spec is damaged: {error}") from error
    if not 0 < len(head.class_names) <= _MAX_CLASSES or any(stride < 1 for stride in head.strides):
        raise SpecError("the head spec is damaged: classes or strides are out of range")
    return head


def post_process(data: Any) -> PostProcess:
    """The post-processing.

    Raises:
        SpecError: a field is missing or wrong.
    """
    values = _fields(data, PostProcess)
    try:
        return PostProcess(
            confidence=float(values["confidence"]),
            iou=float(values["iou"]),
            max_detections=int(values["max_detections"]),
            multi_label=bool(values["multi_label"]),
            max_candidates=int(values["max_candidates"]),
        )
    except (TypeError, ValueError) as error:
        raise SpecError(f"the post-processing is damaged: {error}") from error


def _fields(data: Any, kind: Any) -> dict[str, Any]:
    """The object, which has exactly the fields of the dataclass."""
    wanted = {entry.name for entry in fields(kind)}
    if not isinstance(data, dict) or set(data) != wanted:
        raise SpecError(f"not a {kind.__name__}: {sorted(data) if isinstance(data, dict) else data!r}")
    return data


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
