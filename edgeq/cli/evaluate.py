"""``edgeq evaluate``: what INT8 cost in accuracy, on the user's own labelled images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.flags import (
    FloatSource,
    ImageCount,
    OutputFlags,
    PostFlags,
    RuntimeOptions,
    SpecFlags,
    Split,
    SubjectPath,
    command,
)
from edgeq.cli.onflags import On

if TYPE_CHECKING:
    from edgeq.cli.console import Console
    from edgeq.cli.subject import Subject
    from edgeq.types import Dataset, PostProcess

__all__ = ["evaluate"]


@command
def evaluate(
    *,
    subject: SubjectPath,
    data: Annotated[
        Path, typer.Option("--data", help="Labelled images: data.yaml, COCO .json, .csv or class folders.")
    ],
    split: Split = "val",
    float_source: FloatSource = None,
    images: ImageCount = None,
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
    runtime_option: RuntimeOptions = None,
    on: On = None,
    post: PostFlags,
    spec: SpecFlags,
    output: OutputFlags,
) -> int:
    """Accuracy of INT8 and float, and the drop with its interval."""
    from edgeq.cli.accuracy import measure_accuracy
    from edgeq.cli.budgets import default_drop_points
    from edgeq.cli.console import Console
    from edgeq.cli.datasets import open_evaluation
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.opening import open_subject

    console = Console(output)
    with open_subject(
        subject,
        console=console,
        overrides=spec.overrides(),
        float_source=float_source,
        data=data,
        installed=not on,
        options=runtime_option,
    ) as judged:
        calibration = None if judged.bundle is None else judged.bundle.manifest.calibration
        dataset = open_evaluation(
            data, judged.known.head, console, split=split, images=images, image_folder=image_folder,
            calibration=calibration, allow_overlap=allow_overlap,
        )  # fmt: skip
        chosen = post.post_process()
        if judged.reference is None:
            console.note("no float model to compare with: give it with --float to get the drop")
        if on:
            return _on_devices(on, judged, dataset, chosen, console, per_class=per_class, save=save)
        accuracy = measure_accuracy(judged, dataset, post=chosen, console=console)
        console.show(*accuracy.tables(per_class=per_class, budget_points=default_drop_points(judged)))
        if save:
            keep_reports(judged.bundle, {"accuracy": accuracy.to_json()}, console)
        console.emit({**accuracy.to_json(), "warnings": console.warnings})
    return 0


def _on_devices(
    on: list[str],
    subject: Subject,
    dataset: Dataset,
    post: PostProcess,
    console: Console,
    *,
    per_class: bool,
    save: bool,
) -> int:
    """The same on devices: predictions there, metrics here."""
    from edgeq.cli.accuracy_on import DeviceAccuracy, HostSide, accuracy_on
    from edgeq.cli.budgets import default_drop_points
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.onflags import each_device
    from edgeq.cli.remote import at_work, warn_of_architecture
    from edgeq.device.fleet import DeviceEntry, devices_named

    many = len(devices_named(on)) > 1

    def job(entry: DeviceEntry) -> DeviceAccuracy:
        with at_work(entry, [subject.runtime.name], console, need=[subject.runtime.name]) as side:
            warn_of_architecture(subject, side, console)
            return accuracy_on(side, subject, dataset, host, post, console)

    def show(entry: DeviceEntry, result: DeviceAccuracy) -> None:
        console.show(*result.tables(per_class=per_class, budget_points=default_drop_points(subject)))
        if save:
            name = f"accuracy-{entry.slug}" if many else "accuracy"
            keep_reports(subject.bundle, {name: result.to_json()}, console)

    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        host = HostSide.of(subject, dataset, post, console, folder=Path(folder))
        return each_device(on, job, console, show=show, document=lambda entry, result: result.to_json())
