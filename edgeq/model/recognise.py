"""Input and head spec from what a model file says about itself: names, shapes, metadata, operators.

Works from plain data, so the host uses it on ONNX files and the board on any runtime's session. What cannot
be told for certain is a SpecError that shows the choices.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq.errors import SpecError
from edgeq.model.heads import SPEC_FILE_HINT, HeadFacts, HeadReading, read_head, shape_text
from edgeq.model.presets import COCO_CLASS_NAMES, PRESETS, Preset, SpecOverrides, customary_preset
from edgeq.types import HeadFamily, HeadSpec, InputSpec, Layout, ResizeRule, Task, TensorInfo

__all__ = ["RecognisedSpecs", "SpecOverrides", "recognise"]

_METADATA_LIMIT = 1_000_000
"""Characters of a metadata value that edgeq is ready to parse."""


@dataclass(frozen=True)
class RecognisedSpecs:
    """What a model wants to see and what it answers, and from what that was known."""

    input: InputSpec
    head: HeadSpec
    notes: tuple[str, ...]
    """One line for each thing recognised or given, to be shown to the user."""


def recognise(
    *,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    metadata: Mapping[str, str],
    op_types: frozenset[str] = frozenset(),
    overrides: SpecOverrides,
) -> RecognisedSpecs:
    """Input and head spec of a model.

    Args:
        inputs: the model's inputs.
        outputs: the model's outputs.
        metadata: the model file's own key-value pairs; Ultralytics' are understood.
        op_types: operator names of the graph, where known: they tell whether boxes are decoded in it.
        overrides: what the user gives; it goes before what is recognised.

    Raises:
        SpecError: more than one image input, size unknown, head unknown or ambiguous, pre-processing
            unknown, a task that edgeq does not support, or overrides that contradict the model.
    """
    task = _ultralytics_task(metadata)
    tensor, layout = _image_input(inputs, overrides)
    size, size_origin = _size(tensor, layout, metadata, overrides)
    names, names_origin = _given_names(metadata, overrides)
    end_to_end = metadata.get("end2end", "").strip().lower() == "true"
    facts = HeadFacts(size, names, names_origin, task, end_to_end, op_types, overrides)
    reading = read_head(outputs, facts=facts)
    class_names, names_note = _class_names(reading, facts)
    spec, input_note = _input_spec(tensor, layout, reading, facts)
    head = HeadSpec(
        family=reading.family,
        output=reading.output,
        class_names=class_names,
        strides=reading.strides,
        normalized_boxes=bool(overrides.normalized_boxes),
    )
    return RecognisedSpecs(
        input=spec,
        head=head,
        notes=(
            f"input {tensor.name!r}: {size[0]} x {size[1]} {layout.value.upper()} ({size_origin})",
            f"head: {reading.family.value}, output {reading.output!r} ({reading.reason})",
            input_note,
            names_note,
        ),
    )


# Metadata


def _ultralytics_task(metadata: Mapping[str, str]) -> str | None:
    """Ultralytics' task; None where the file does not name one."""
    task = metadata.get("task")
    if task is not None and task not in (Task.DETECT.value, Task.CLASSIFY.value):
        raise SpecError(
            f"the model's metadata says task {task!r}; edgeq takes detect and classify",
            fix="export a detection or classification model",
        )
    return task


def _literal(text: str) -> object:
    """The value of a Python literal, or None where it is not one."""
    if len(text) > _METADATA_LIMIT:
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _given_names(metadata: Mapping[str, str], overrides: SpecOverrides) -> tuple[tuple[str, ...] | None, str]:
    """Class names that were given, and by whom; None where nobody did."""
    if overrides.class_names is not None:
        return overrides.class_names, "given"
    value = _literal(metadata["names"]) if "names" in metadata else None
    if isinstance(value, dict) and sorted(value, key=str) == sorted(range(len(value)), key=str):
        return tuple(str(value[index]) for index in range(len(value))), "from the metadata"
    if isinstance(value, (list, tuple)):
        return tuple(str(name) for name in value), "from the metadata"
    return None, "metadata unreadable" if "names" in metadata else ""


def _class_names(reading: HeadReading, facts: HeadFacts) -> tuple[tuple[str, ...], str]:
    """Names of the classes and a note on where they come from."""
    if facts.names is not None:
        return facts.names, f"classes: {len(facts.names)}, names {facts.names_origin}"
    count = reading.class_count
    why = f" ({facts.names_origin})" if facts.names_origin else ""
    if count is None:
        raise SpecError(
            f"output {reading.output!r} does not tell how many classes the model has{why}",
            fix=f"give the class names (class_names = [...]), {SPEC_FILE_HINT}",
        )
    if reading.family.task is Task.DETECT and count == len(COCO_CLASS_NAMES):
        return COCO_CLASS_NAMES, f"classes: {count}, COCO's names assumed from the number{why}"
    return tuple(f"class{index}" for index in range(count)), f"classes: {count}, names not known{why}"


# Input


def _image_input(inputs: Sequence[TensorInfo], overrides: SpecOverrides) -> tuple[TensorInfo, Layout]:
    """The one image input and its layout."""
    listed = ", ".join(f"{info.name!r} ({shape_text(info)})" for info in inputs) or "none"
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise SpecError(
            f"edgeq takes models with exactly one input, an image of 4 dimensions; this one has: {listed}",
            fix="export the model with one image input; sizes or scales as extra inputs are not supported",
        )
    tensor = inputs[0]
    batch, *rest = tensor.shape
    if isinstance(batch, int) and batch not in (1, -1):
        raise SpecError(
            f"input {listed} has a batch of {batch}; edgeq takes 1", fix="export with batch 1 or dynamic"
        )
    fitting = [layout for layout, axis in ((Layout.NCHW, 0), (Layout.NHWC, 2)) if rest[axis] in (1, 3)]
    layout = overrides.layout or (fitting[0] if fitting else None)
    if layout is None:
        raise SpecError(
            f"input {listed}: neither the second nor the last dimension is the number of channels",
            fix=f"say which one is: --layout nchw or --layout nhwc, {SPEC_FILE_HINT}",
        )
    channels = rest[0] if layout is Layout.NCHW else rest[2]
    if isinstance(channels, int) and channels not in (3, -1):
        raise SpecError(
            f"input {listed} has {channels} channels in layout {layout.value}; edgeq takes 3",
            fix="use a model for colour images (three channels)",
        )
    return tensor, layout


def _size(
    tensor: TensorInfo, layout: Layout, metadata: Mapping[str, str], overrides: SpecOverrides
) -> tuple[tuple[int, int], str]:
    """Height and width in pixels, and from what."""
    height, width = tensor.shape[2:4] if layout is Layout.NCHW else tensor.shape[1:3]
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        if overrides.size not in (None, (height, width)):
            raise SpecError(
                f"the model's input is fixed at {height} x {width}, not {overrides.size}",
                fix="leave the size out, or export the model again at that size",
            )
        return (height, width), "from the shape"
    if overrides.size is not None:
        return overrides.size, "size given, the shape is dynamic"
    size = _literal(metadata.get("imgsz", ""))
    size = [size, size] if isinstance(size, int) else size
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size):
        return (int(size[0]), int(size[1])), "size from the metadata, the shape is dynamic"
    raise SpecError(
        f"input {tensor.name!r} has a dynamic size ({shape_text(tensor)})",
        fix=f"give --imgsz, for example --imgsz 640, {SPEC_FILE_HINT}",
    )


def _input_spec(
    tensor: TensorInfo, layout: Layout, reading: HeadReading, facts: HeadFacts
) -> tuple[InputSpec, str]:
    """The input spec, and a note on where its pre-processing comes from."""
    given = facts.overrides
    preset, origin = _preset(reading, facts)
    color = given.color or (preset.color if preset else None)
    mean = given.mean or (preset.mean if preset else None)
    std = given.std or (preset.std if preset else None)
    resize = given.resize or (preset.resize if preset else None)
    if color is None or mean is None or std is None or resize is None:
        raise _unknown_input(reading)
    short_side = given.short_side_px
    if short_side is None and preset is not None and preset.short_side_ratio is not None:
        short_side = round(min(facts.size) * preset.short_side_ratio)
    spec = InputSpec(
        name=tensor.name,
        height_px=facts.size[0],
        width_px=facts.size[1],
        layout=layout,
        color=color,
        mean=mean,
        std=std,
        resize=resize,
        pad_value=114 if given.pad_value is None else given.pad_value,
        short_side_px=short_side if resize is ResizeRule.CENTER_CROP else None,
    )
    own = [
        name
        for name in ("color", "mean", "std", "resize", "pad_value", "short_side_px")
        if _is_given(given, name)
    ]
    origin = "; ".join(filter(None, [origin, f"given: {', '.join(own)}" if own else ""]))
    return spec, f"pre-processing: {_describe(spec)} ({origin})"


def _is_given(overrides: SpecOverrides, name: str) -> bool:
    return getattr(overrides, name) is not None


def _preset(reading: HeadReading, facts: HeadFacts) -> tuple[Preset | None, str]:
    """The preset that fills what the user did not give, and why that one."""
    name = facts.overrides.preset
    if name is not None:
        if name not in PRESETS:
            raise SpecError(f"there is no preset {name!r}", fix=f"use one of {', '.join(PRESETS)}")
        return PRESETS[name], f"preset {name}, given"
    if reading.family is HeadFamily.CLASSIFIER and facts.ultralytics_task == Task.CLASSIFY.value:
        return PRESETS["unit"], "from the Ultralytics metadata"
    name = customary_preset(reading.family)
    if name is None or not reading.sure_of_input:
        return None, ""
    return PRESETS[name], f"customary for {reading.family.value}"


def _unknown_input(reading: HeadReading) -> SpecError:
    """The error for pre-processing that nothing tells."""
    choices = "".join(
        f"\n    --preset {name:<12} {preset.summary}"
        for name, preset in PRESETS.items()
        if preset.task is reading.family.task
    )
    return SpecError(
        f"nothing tells how images are prepared for this {reading.family.value} model "
        f"(colour order, range, resize), and a wrong guess costs accuracy without a word",
        fix=f"say it as in training, {SPEC_FILE_HINT}; with color, mean, std and resize, or one of:{choices}",
    )


def _describe(spec: InputSpec) -> str:
    """The pre-processing in a few words."""
    if spec.mean == (0.0,) * 3 and spec.std in ((1.0,) * 3, (255.0,) * 3):
        scale = "0..255" if spec.std[0] == 1.0 else "0..1"
    else:
        scale = f"mean {_numbers(spec.mean)} std {_numbers(spec.std)}"
    side = f", short side {spec.short_side_px}" if spec.short_side_px else ""
    return f"{spec.color.value.upper()}, {scale}, {spec.resize.value}{side}"


def _numbers(values: Sequence[float]) -> str:
    """Three numbers, or one where they are equal."""
    return "/".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))
