"""``edgeq predict``: one image through the artifact, as boxes drawn on it or as classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import OutputFlags, RuntimeOptions, SpecFlags, SubjectPath, Threads, command
from edgeq.cli.onflags import On

if TYPE_CHECKING:
    from edgeq.cli.console import Console
    from edgeq.cli.subject import Subject
    from edgeq.types import Detections, Float32Array, Prediction, UInt8Array

__all__ = ["predict"]

_TOP = 5
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@command
def predict(
    *,
    subject: SubjectPath,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A photograph.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Image to write with the boxes drawn.")
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", min=0.0, max=1.0, help="Least score.")] = 0.25,
    iou: Annotated[float, typer.Option("--iou", min=0.0, max=1.0, help="NMS per class drops above.")] = 0.65,
    threads: Threads = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output file.")] = False,
    runtime_option: RuntimeOptions = None,
    on: On = None,
    spec: SpecFlags,
    output: OutputFlags,
) -> None:
    """What the model sees in an image."""
    from edgeq.cli.console import Console
    from edgeq.cli.opening import open_subject
    from edgeq.data.images import read_image
    from edgeq.errors import OutputError
    from edgeq.files import check_free
    from edgeq.types import Detections, PostProcess

    console = Console(output)
    if out is not None:
        check_free(out, force=force, folder=False)
        if out.suffix.lower() not in _SUFFIXES:
            raise OutputError(f"{out} is no image file", fix=f"end it in {', '.join(_SUFFIXES)}")
    pixels = read_image(image)
    with open_subject(
        subject, console=console, overrides=spec.overrides(), installed=not on, options=runtime_option
    ) as judged:
        post = PostProcess(confidence=confidence, iou=iou, multi_label=False, max_detections=100)
        if not on and judged.runner.note:
            console.warn(judged.runner.note)
        found = (
            _infer_on(on, judged, image, post, threads, console)
            if on
            else _infer(judged, pixels, post, threads)
        )
        names = judged.known.head.class_names
        rows = _boxes(found, names) if isinstance(found, Detections) else _classes(found, names)
        if rows:
            console.show(str(image), _table(rows))
        else:
            console.show(f"nothing found in {image} with a score of {confidence:g} or more")
        if out is not None:
            _write(out, pixels, rows)
            console.note(f"written: {out}")
        key = "detections" if isinstance(found, Detections) else "classes"
        console.emit({"image": str(image), key: rows, "output": None if out is None else str(out)})


def _infer(subject: Subject, pixels: UInt8Array, post: Any, threads: int) -> Prediction:
    from edgeq.data.preprocess import preprocess
    from edgeq.model.decode import decode_outputs

    runner = subject.runner
    session = runner.runtime.open_session(runner.path, options=replace(subject.options, threads=threads))
    specs = subject.known.fitted(session)
    tensor, geometry = preprocess(pixels, specs.input)
    outputs = session.infer(tensor)
    return decode_outputs(outputs, head=specs.head, spec=specs.input, geometry=geometry, post=post)


def _infer_on(
    on: list[str], subject: Subject, image: Path, post: Any, threads: int, console: Console
) -> Prediction:
    """The same on a device."""
    from edgeq.cli.remote import at_work, predict_on
    from edgeq.device.fleet import devices_named
    from edgeq.errors import InputError

    entries = devices_named(on)
    if len(entries) != 1:
        raise InputError("predict runs on one device", fix="give --on once; evaluate and bench take many")
    name = subject.runtime.name
    with at_work(entries[0], [name], console, need=[name]) as side:
        return predict_on(side, subject, image, post, threads)


def _boxes(found: Detections, names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"class": names[int(index)], "class_id": int(index), "score": float(score), "box_xyxy": box.tolist()}
        for box, score, index in zip(found.boxes_xyxy, found.scores, found.class_ids, strict=True)
    ]


def _classes(scores: Float32Array, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The best classes, with probabilities: the scores themselves, or their softmax where they are logits."""
    import numpy as np

    wide = scores.astype(np.float64)
    if np.min(wide) < 0 or abs(wide.sum() - 1) > 1e-3:
        wide = np.exp(wide - np.max(wide))
        wide /= wide.sum()
    best = np.argsort(-wide, kind="stable")[:_TOP].tolist()
    return [{"class": names[index], "class_id": index, "score": float(wide[index])} for index in best]


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from edgeq.report.numbers import number, plain

    boxed = "box_xyxy" in rows[0]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    table.add_column("score", justify="right")
    if boxed:
        table.add_column("x1, y1, x2, y2, px", justify="right")
    for row in rows:
        cells = [plain(row["class"]), number(row["score"], 3)]
        cells += [", ".join(f"{value:.0f}" for value in row["box_xyxy"])] if boxed else []
        table.add_row(*map(Text, cells))
    return table


def _write(out: Path, pixels: UInt8Array, rows: list[dict[str, Any]]) -> None:
    """The image with boxes, or with the best class in its corner."""
    import cv2
    import numpy as np

    from edgeq.errors import OutputError
    from edgeq.files import atomic_write

    canvas = np.ascontiguousarray(pixels[..., ::-1])
    scale = max(canvas.shape[:2]) / 1000
    thickness = max(1, round(2 * scale))
    for row in rows if "box_xyxy" in (rows[0] if rows else {}) else rows[:1]:
        color = _color(row["class_id"])
        x1, y1, x2, y2 = (round(value) for value in row.get("box_xyxy", (0, 0, 0, 0)))
        if "box_xyxy" in row:
            cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)
        text = f"{row['class']} {row['score']:.2f}".encode("ascii", "replace").decode()
        place = (x1 + thickness, max(y1 - thickness - 2, round(24 * max(scale, 0.5))))
        cv2.putText(
            canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, max(0.4, 0.7 * scale), (0, 0, 0), thickness * 3
        )
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, max(0.4, 0.7 * scale), color, thickness)
    done, encoded = cv2.imencode(out.suffix.lower(), canvas)
    if not done:
        raise OutputError(f"{out} cannot be encoded", fix="choose another image format, such as .png")
    atomic_write(out, encoded.tobytes())


def _color(class_id: int) -> tuple[int, int, int]:
    """A bright colour per class, neighbours far apart on the hue circle (golden angle)."""
    import cv2
    import numpy as np

    hue = int(class_id * 137.508 / 2) % 180
    pixel = cv2.cvtColor(np.array([[[hue, 200, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])
