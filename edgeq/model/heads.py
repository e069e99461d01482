"""The ways to read a model's outputs: the head family that a shape stands for, or the several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeq.errors import SpecError
from edgeq.model.decode import cell_counts
from edgeq.model.presets import SpecOverrides
from edgeq.types import HeadFamily, TensorInfo

__all__ = ["SPEC_FILE_HINT", "HeadFacts", "HeadReading", "read_head", "shape_text"]

SPEC_FILE_HINT = "or write it into MODEL.edgeq.toml beside the model"

_STRIDE_SETS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_DECODING_OPS = frozenset({"Exp", "Pow", "Softmax", "Sub"})
"""An undecoded YOLOX has none of these; a decoder in the graph has at least one."""
_ANCHORS = 3
"""YOLOv5 and v7: boxes per grid cell."""
_COCO_BOX_AND_CLASSES = 84
"""Both 79 classes with objectness and COCO's 80 without: not told apart by the shape."""


@dataclass(frozen=True)
class HeadReading:
    """One way to understand one output."""

    output: str
    family: HeadFamily
    class_count: int | None
    """None: the shape does not tell."""
    strides: tuple[int, ...]
    reason: str
    sure_of_input: bool = True
    """Whether the family's customary pre-processing may be taken for granted."""


@dataclass(frozen=True)
class HeadFacts:
    """Everything known before the head is read."""

    size: tuple[int, int]
    """Height and width of the input in pixels."""
    names: tuple[str, ...] | None
    names_origin: str
    """Who gave the names, or why they are not known."""
    ultralytics_task: str | None
    end_to_end: bool
    """Ultralytics' metadata says that the graph ends without need of NMS."""
    op_types: frozenset[str]
    overrides: SpecOverrides


def shape_text(info: TensorInfo) -> str:
    """Shape for people: ``1 x 3 x ? x ?``."""
    return " x ".join(str(d) if isinstance(d, int) and d >= 0 else "?" for d in info.shape)


def read_head(outputs: Sequence[TensorInfo], *, facts: HeadFacts) -> HeadReading:
    """The only way to understand the outputs.

    Raises:
        SpecError: there is none, or more than one.
    """
    wanted = facts.overrides.output
    considered = [info for info in outputs if wanted in (None, info.name)]
    if not considered:
        raise SpecError(
            f"the model has no output {wanted!r}; it has {', '.join(repr(o.name) for o in outputs)}"
        )
    readings = [reading for info in considered for reading in _readings(info, facts)]
    fitting = [r for r in readings if facts.names is None or r.class_count in (None, len(facts.names))]
    if len(fitting) == 1:
        return fitting[0]
    if not readings:
        raise _unknown_head(considered, facts)
    if not fitting:
        counts = " or ".join(sorted({str(reading.class_count) for reading in readings}))
        names = f"{len(facts.names or ())} class names ({facts.names_origin})"
        raise SpecError(
            f"{names}, but the output has {counts} classes",
            fix="give as many class names as the model has classes",
        )
    raise _ambiguous_head(fitting)


def _ambiguous_head(fitting: Sequence[HeadReading]) -> SpecError:
    """The error that shows the choices."""
    choices = "".join(
        f"\n    --family {r.family.value} --output {r.output}: {r.class_count or '?'} classes, {r.reason}"
        for r in fitting
    )
    return SpecError(
        f"the model's output can be read in {len(fitting)} ways:{choices}",
        fix=f"say which one is right with --family and --output, {SPEC_FILE_HINT}; "
        "a YOLOX whose boxes are decoded in the graph is --family yolov5 --preset yolox",
    )


def _unknown_head(considered: Sequence[TensorInfo], facts: HeadFacts) -> SpecError:
    """The error for outputs that fit no family, or not the one that was given."""
    listed = ", ".join(f"{info.name!r} ({shape_text(info)})" for info in considered)
    family = facts.overrides.family
    known = (
        "YOLOX and YOLOv5 (1 x boxes x 5+classes), YOLOv8 to 12 (1 x 4+classes x boxes), "
        "end-to-end (1 x boxes x 6) and classifiers (1 x classes)"
    )
    return SpecError(
        f"output {listed} fits no head that edgeq knows at input {facts.size[0]} x {facts.size[1]}"
        if family is None
        else f"output {listed} does not fit family {family.value} at input {facts.size[0]} x {facts.size[1]}",
        fix=f"export the model with one of these outputs: {known}",
    )


def _readings(info: TensorInfo, facts: HeadFacts) -> list[HeadReading]:
    """Every way to understand one output that agrees with the metadata and the user."""
    shape = tuple(d if isinstance(d, int) and d >= 0 else None for d in info.shape)
    if len(shape) == 4 and shape[2:] == (1, 1):
        shape = shape[:2]
    if not shape or shape[0] not in (None, 1):
        return []
    found: list[HeadReading] = []
    if len(shape) == 2 and (shape[1] is None or shape[1] > 1):
        found = [
            HeadReading(info.name, HeadFamily.CLASSIFIER, shape[1], _STRIDE_SETS[0], "a score for each class")
        ]
    elif len(shape) == 3:
        found = [*_box_readings(info.name, shape[1], shape[2], facts)]
    if facts.overrides.family is not None:
        return [reading for reading in found if reading.family is facts.overrides.family]
    if facts.ultralytics_task is not None:
        found = [r for r in found if r.family.task.value == facts.ultralytics_task]
        found = [r for r in found if r.family is not HeadFamily.YOLOX]
    if facts.end_to_end:
        found = [r for r in found if r.family is HeadFamily.END_TO_END]
    return found


def _box_readings(
    output: str, first: int | None, last: int | None, facts: HeadFacts
) -> Iterator[HeadReading]:
    """Ways to understand (1, first, last) as boxes; None is a dynamic dimension."""
    sets = (facts.overrides.strides,) if facts.overrides.strides else _STRIDE_SETS
    cells = {strides: sum(cell_counts(*facts.size, strides)) for strides in sets}
    known = first in cells.values() or first in [_ANCHORS * count for count in cells.values()]
    for strides, count in cells.items():
        if None in (first, last) and strides is not sets[0]:
            continue
        text = f"{count} cells of strides {', '.join(map(str, strides))}"
        if last is not None and last > 5 and first in (count, None):
            yield HeadReading(output, HeadFamily.YOLOX, last - 5, strides, f"{text}, boxes not decoded")
            given = facts.overrides.family is HeadFamily.YOLOV5
            if first is not None and (given or facts.op_types & _DECODING_OPS):
                reason = f"{text}, boxes already decoded"
                yield HeadReading(output, HeadFamily.YOLOV5, last - 5, strides, reason, sure_of_input=False)
        if last is not None and last > 5 and first in (_ANCHORS * count, None):
            sure = first is not None or facts.ultralytics_task is not None
            yield HeadReading(output, HeadFamily.YOLOV5, last - 5, strides, f"3 anchors on {text}", sure)
        if first is not None and first > 4 and last in (count, None):
            yield HeadReading(output, HeadFamily.YOLOV8, first - 4, strides, text)
        if last is not None and last > 4 and first == count and _may_lack_objectness(last, facts):
            yield HeadReading(
                output, HeadFamily.YOLOV8, last - 4, strides, f"{text}, transposed, no objectness"
            )
    if first is not None and last is not None and last not in cells.values() and _is_named_v8(first, facts):
        yield HeadReading(output, HeadFamily.YOLOV8, first - 4, sets[0], f"{last} boxes, {first - 4} names")
    if last == 6 and not known:
        yield HeadReading(output, HeadFamily.END_TO_END, None, sets[0], "x1, y1, x2, y2, score, class")


def _is_named_v8(channels: int, facts: HeadFacts) -> bool:
    """Whether names and metadata (or the user) vouch for a v8 head whose number of boxes says nothing."""
    vouched = facts.ultralytics_task is not None or facts.overrides.family is HeadFamily.YOLOV8
    return vouched and facts.names is not None and channels == 4 + len(facts.names)


def _may_lack_objectness(channels: int, facts: HeadFacts) -> bool:
    """Whether (1, boxes, channels) may be boxes and classes without objectness between them."""
    if facts.names is not None:
        return len(facts.names) == channels - 4
    return channels == _COCO_BOX_AND_CLASSES or facts.overrides.family is HeadFamily.YOLOV8
