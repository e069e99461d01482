"""Arguments and flags that several commands share, and groups of them, each a frozen dataclass.

Importing this loads typer and nothing else, so that ``edgeq --help`` answers at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from edgeq.cli.values import choice, levels, size_px, spreads, strides

if TYPE_CHECKING:
    from edgeq.gate import Budget
    from edgeq.model.presets import SpecOverrides
    from edgeq.types import PostProcess

__all__ = [
    "BudgetFlags",
    "FloatSource",
    "ImageCount",
    "Interrupted",
    "OutputFlags",
    "PostFlags",
    "RuntimeOptions",
    "SpecFlags",
    "Split",
    "SubjectPath",
    "Threads",
    "command",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Interrupted(RuntimeError):  # noqa: N818 (not an error)
    """Ctrl-C inside a command; not KeyboardInterrupt, which typer would turn into something else."""


def command(function: _Function) -> _Function:
    """The command as typer shall see it: a parameter that is a group of flags becomes the group's flags."""
    signature = inspect.signature(function, eval_str=True)
    groups: dict[str, Any] = {
        name: p.annotation for name, p in signature.parameters.items() if is_dataclass(p.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        flat = _flags_of(groups[name]) if name in groups else [parameter]
        parameters += [entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in flat]

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{entry.name: given.pop(entry.name) for entry in fields(group)})
        try:
            return function(**given)
        except KeyboardInterrupt as error:
            raise Interrupted from error

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {entry.name: entry.annotation for entry in parameters}
    return call  # type: ignore[return-value]


def _flags_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            entry.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if entry.default is MISSING else entry.default,
            annotation=hints[entry.name],
        )
        for entry in fields(group)
    ]


SubjectPath = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE|MODEL", help="A bundle's folder, or a model: .onnx, .tflite, .xml, .mlpackage."
    ),
]
FloatSource = Annotated[
    Path | None, typer.Option("--float", metavar="SOURCE", help="Float model to compare with.")
]
ImageCount = Annotated[
    int | None, typer.Option("--images", min=1, metavar="N", help="Only N images, evenly spread.")
]
Split = Annotated[str, typer.Option("--split", help="Split of the data set.")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=1024, help="Inside one inference.")]
RuntimeOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime-option",
        metavar="NAME=VALUE",
        help="Of the runtime alone, repeatable: compute-units=cpu-and-ne, dla-core=0, xnnpack=off.",
        show_default=False,
    ),
]
"""What only one runtime knows is not a flag of its own: `edgeq.runtimes.options` asks the runtime."""


def _flag(*names: str, **options: Any) -> Any:
    return typer.Option(*names, show_default=False, **options)


@dataclass(frozen=True)
class OutputFlags:
    """How a command talks."""

    json: Annotated[bool, _flag("--json", help="One JSON document on stdout, nothing else.")] = False
    quiet: Annotated[bool, _flag("--quiet", "-q", help="No notes and no progress on stderr.")] = False


@dataclass(frozen=True)
class SpecFlags:
    """What the user says about a model; see `edgeq.model.presets.SpecOverrides`."""

    imgsz: Annotated[Any | None, _flag("--imgsz", parser=size_px, metavar="PX|HxW", help="Input size.")] = (
        None
    )
    preset: Annotated[
        str | None,
        _flag(
            "--preset", metavar="NAME",
            help="Customary pre-processing: yolox, ultralytics, imagenet, tf-lite, tf, unit.",
        ),
    ] = None  # fmt: skip
    head: Annotated[
        Any | None,
        _flag(
            "--head", parser=choice("edgeq.types:HeadFamily"),
            metavar="yolox|yolov5|yolov8|end2end|classifier", help="Family of the model's head.",
        ),
    ] = None  # fmt: skip
    output_name: Annotated[str | None, _flag("--output-name", help="Output that holds the predictions.")] = (
        None
    )
    classes: Annotated[Path | None, _flag("--classes", help="Text file with one class name per line.")] = None
    color: Annotated[
        Any | None,
        _flag("--color", parser=choice("edgeq.types:ColorOrder"), metavar="rgb|bgr", help="Channel order."),
    ] = None  # fmt: skip
    mean: Annotated[
        Any | None,
        _flag("--mean", parser=levels, metavar="N|R,G,B", help="Subtracted from pixels of 0..255."),
    ] = None  # fmt: skip
    std: Annotated[
        Any | None,
        _flag(
            "--std", parser=spreads, metavar="N|R,G,B",
            help="Divided by: 255 for a range of 0..1, 1 for 0..255.",
        ),
    ] = None  # fmt: skip
    resize: Annotated[
        Any | None,
        _flag(
            "--resize", parser=choice("edgeq.types:ResizeRule"),
            metavar="letterbox-center|letterbox-topleft|stretch|center-crop", help="How an image is fitted.",
        ),
    ] = None  # fmt: skip
    pad_value: Annotated[
        int | None, _flag("--pad-value", min=0, max=255, help="Grey level of a letterbox.")
    ] = None
    short_side: Annotated[
        int | None,
        _flag("--short-side", min=1, max=16384, help="Short side before a centre crop, in pixels."),
    ] = None  # fmt: skip
    layout: Annotated[
        Any | None,
        _flag("--layout", parser=choice("edgeq.types:Layout"), metavar="nchw|nhwc", help="Axis order."),
    ] = None  # fmt: skip
    strides: Annotated[
        Any | None, _flag("--strides", parser=strides, metavar="N,N,N", help="YOLOX: grid strides.")
    ] = None
    normalized_boxes: Annotated[
        bool | None,
        _flag("--normalized-boxes/--pixel-boxes", help="Boxes in 0..1 of the input, or in pixels."),
    ] = None  # fmt: skip

    def overrides(self) -> SpecOverrides:
        """The same as `SpecOverrides`.

        Raises:
            SpecError: an unknown preset, or a file of class names that cannot be read.
        """
        from edgeq.cli.labels import read_class_names
        from edgeq.errors import SpecError
        from edgeq.model.presets import PRESETS, SpecOverrides

        if self.preset is not None and self.preset not in PRESETS:
            raise SpecError(f"there is no preset {self.preset!r}", fix=f"use one of {', '.join(PRESETS)}")
        return SpecOverrides(
            family=self.head,
            output=self.output_name,
            class_names=None if self.classes is None else read_class_names(self.classes),
            size=self.imgsz,
            layout=self.layout,
            color=self.color,
            mean=self.mean,
            std=self.std,
            resize=self.resize,
            pad_value=self.pad_value,
            short_side_px=self.short_side,
            strides=self.strides,
            normalized_boxes=self.normalized_boxes,
            preset=self.preset,
        )


@dataclass(frozen=True)
class PostFlags:
    """Post-processing of detections; the defaults are those of the metric, recorded with it."""

    confidence: Annotated[
        float, typer.Option("--confidence", min=0.0, max=1.0, help="Detections below are dropped.")
    ] = 0.001
    iou: Annotated[float, typer.Option("--iou", min=0.0, max=1.0, help="NMS per class drops above.")] = 0.65

    def post_process(self) -> PostProcess:
        """The same as a `PostProcess`."""
        from edgeq.types import PostProcess

        return PostProcess(confidence=self.confidence, iou=self.iou)


@dataclass(frozen=True)
class BudgetFlags:
    """Limits of the gate; the fields are those of `edgeq.gate.Budget`."""

    max_map_drop: Annotated[float | None, _flag("--max-map-drop", help="Points of mAP 50-95 x 100.")] = None
    max_top1_drop: Annotated[float | None, _flag("--max-top1-drop", help="Points of top-1 x 100.")] = None
    min_map: Annotated[float | None, _flag("--min-map", help="mAP 50-95 of INT8, 0..1.")] = None
    max_p50_ms: Annotated[float | None, _flag("--max-p50-ms", help="Median latency.")] = None
    max_p90_ms: Annotated[float | None, _flag("--max-p90-ms", help="90th percentile.")] = None
    max_p95_ms: Annotated[float | None, _flag("--max-p95-ms", help="95th percentile.")] = None
    max_p99_ms: Annotated[float | None, _flag("--max-p99-ms", help="99th percentile.")] = None
    max_size_mb: Annotated[float | None, _flag("--max-size-mb", help="Size of the artifact, 10^6 bytes.")] = (
        None
    )
    max_memory_mb: Annotated[
        float | None, _flag("--max-memory-mb", help="Peak of a process that runs it.")
    ] = None
    min_speedup: Annotated[float | None, _flag("--min-speedup", help="Against float, wall time.")] = None
    refuse_throttled: Annotated[
        bool, _flag("--refuse-throttled", help="Fail where the machine throttled, or cannot tell.")
    ] = False

    def budget(self) -> Budget:
        """The same as a `Budget`.

        Raises:
            InputError: a limit that is no sensible number.
        """
        from edgeq.gate import Budget

        return Budget(**{entry.name: getattr(self, entry.name) for entry in fields(self)})
