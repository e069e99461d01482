"""``edgeq evaluate``: what INT8 cost in accuracy, on the user's own labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.flags import OutputFlags, PostFlags, SpecFlags, command

__all__ = ["evaluate", "refuse_remote"]


def refuse_remote(on: str | None) -> None:
    """Raise where a device was asked for.

    Raises:
        UnavailableError: always, as this version has no device links.
    """
    from edgeq.errors import UnavailableError

    if on is not None:
        raise UnavailableError(
            f"--on {on}: running on a device is not in this version of edgeq",
            fix="leave --on out to run on this machine, or run edgeq on the device itself",
        )


@command
def evaluate(
    *,
    subject: Annotated[
        Path, typer.Argument(metavar="BUNDLE|MODEL", help="A bundle's folder, or an .onnx or .tflite file.")
    ],
    data: Annotated[Path, typer.Option("--data", help="data.yaml, COCO .json, .csv or class folders.")],
    split: Annotated[str, typer.Option("--split", help="Split of the data set.")] = "val",
    float_source: Annotated[
        Path | None, typer.Option("--float", metavar="SOURCE", help="Float model to compare with.")
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, metavar="N", help="Only N images, evenly spread.")
    ] = None,
    image_folder: Annotated[
        Path | None,
        typer.Option("--image-folder", help="Images of a .json or .csv, where they lie elsewhere."),
    ] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Also use images that the model was calibrated on.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="mAP of each class.")] = False,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep reports/accuracy.json in the bundle.")
    ] = True,
    on: Annotated[str | None, typer.Option("--on", metavar="LINK", help="Device to run on.")] = None,
    post: PostFlags,
    spec: SpecFlags,
    output: OutputFlags,
) -> None:
    """Accuracy of INT8 and float, and the drop with its interval."""
    from edgeq.cli.accuracy import measure_accuracy
    from edgeq.cli.budgets import default_drop_points
    from edgeq.cli.console import Console
    from edgeq.cli.datasets import open_evaluation
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.subject import open_subject
    from edgeq.types import PostProcess

    refuse_remote(on)
    console = Console(output)
    with open_subject(
        subject, console=console, overrides=spec.overrides(), float_source=float_source, data=data
    ) as judged:
        calibration = None if judged.bundle is None else judged.bundle.manifest.calibration
        dataset = open_evaluation(
            data, judged.known.head, console, split=split, images=images, image_folder=image_folder,
            calibration=calibration, allow_overlap=allow_overlap,
        )  # fmt: skip
        accuracy = measure_accuracy(
            judged, dataset, post=PostProcess(confidence=post.confidence, iou=post.iou), console=console
        )
        if judged.reference is None:
            console.note("no float model to compare with: give it with --float to get the drop")
        console.show(*accuracy.tables(per_class=per_class, budget_points=default_drop_points(judged)))
        if save:
            keep_reports(judged.bundle, {"accuracy": accuracy.to_json()}, console)
        console.emit({**accuracy.to_json(), "warnings": console.warnings})
