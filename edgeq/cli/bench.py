"""``edgeq bench``: how fast float and INT8 are here, measured in turns."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.evaluate import refuse_remote
from edgeq.cli.flags import OutputFlags, SpecFlags, command, duration_s

if TYPE_CHECKING:
    from edgeq.cli.console import Console
    from edgeq.cli.latency import Rival
    from edgeq.cli.subject import Subject
    from edgeq.runtimes.base import Runtime

__all__ = ["bench", "float_rivals"]


@command
def bench(
    *,
    subject: Annotated[
        Path, typer.Argument(metavar="BUNDLE|MODEL", help="A bundle's folder, or an .onnx or .tflite file.")
    ],
    against: Annotated[
        str,
        typer.Option("--against", metavar="float|OTHER", help="The float model, or another bundle or model."),
    ] = "float",
    float_source: Annotated[
        Path | None, typer.Option("--float", metavar="SOURCE", help="Float model to compare with.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="Inside one inference.")] = 1,
    duration: Annotated[
        float, typer.Option("--duration", parser=duration_s, metavar="TIME", help="In all: 10s, 2m.")
    ] = 10.0,
    min_runs: Annotated[
        int, typer.Option("--min-runs", min=1, help="Of each model at least; 64 quote p90, 662 quote p99.")
    ] = 64,
    data: Annotated[
        Path | None, typer.Option("--data", help="Real images for the whole path: data set or folder.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the data set.")] = "val",
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also the time, precision and kernel of each layer.")
    ] = False,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure peak memory.")] = True,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep reports/latency.json in the bundle.")
    ] = True,
    on: Annotated[str | None, typer.Option("--on", metavar="LINK", help="Device to run on.")] = None,
    spec: SpecFlags,
    output: OutputFlags,
) -> None:
    """Latency, CPU time and memory of INT8 against float."""
    from edgeq.cli.audit import audit_of
    from edgeq.cli.console import Console
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.latency import BenchSettings, measure_latency
    from edgeq.cli.layers import layer_times, layers_json, layers_table
    from edgeq.cli.subject import open_subject
    from edgeq.data.dataset import open_dataset

    refuse_remote(on)
    console = Console(output)
    with (
        tempfile.TemporaryDirectory(prefix="edgeq-") as folder,
        open_subject(
            subject, console=console, overrides=spec.overrides(), float_source=float_source, data=data
        ) as judged,
    ):
        rivals = (
            float_rivals(judged, Path(folder), console)
            if against == "float"
            else [_other(Path(against), console)]
        )
        samples = () if data is None else open_dataset(data, split=split, labels_required=False).samples
        latency = measure_latency(
            judged,
            rivals,
            settings=BenchSettings(threads, duration, min_runs, memory),
            samples=samples,
            audit=audit_of(judged, threads=threads),
            console=console,
        )
        report = latency.to_json()
        console.show(*latency.tables())
        if per_layer:
            layers = layer_times(judged, threads=threads, samples=samples)
            report["layers"] = layers_json(layers)
            console.show(layers_table(layers, name=latency.judged))
        if save:
            keep_reports(judged.bundle, {"latency": report}, console)
        console.emit({**report, "warnings": console.warnings})


def float_rivals(subject: Subject, folder: Path, console: Console) -> list[Rival]:
    """The float model in float32 and, where that is another one, in the runtime's default precision.

    Args:
        subject: what they are rivals of.
        folder: temporary, for a float model that has to be lowered first.
        console: told which precision float is.
    """
    from edgeq.cli.latency import Rival

    runtime = subject.runtime
    artifact = subject.float_artifact
    if artifact is None and subject.reference is not None:
        artifact = _in_runtimes_form(subject.reference, runtime, folder)
    if artifact is None:
        console.note("no float model to compare with: give it with --float, or name another with --against")
        return []
    rivals = [Rival("float", artifact, runtime)]
    if runtime.default_float == "float32":
        console.note(f"float is float32, which is also the default of {runtime.name}")
    else:
        rivals.append(Rival(f"float ({runtime.default_float})", artifact, runtime, default_float=True))
    return rivals


def _in_runtimes_form(reference: Path, runtime: Runtime, folder: Path) -> Path:
    """The float ONNX model as the runtime loads it."""
    from edgeq.runtimes.base import LowerOptions

    if reference.suffix in runtime.artifact_suffixes:
        return reference
    return runtime.lower(reference.read_bytes(), folder, options=LowerOptions(name="float")).path


def _other(path: Path, console: Console) -> Rival:
    """Another bundle's artifact or a model file."""
    from edgeq.cli.latency import Rival
    from edgeq.cli.subject import open_subject

    with open_subject(path, console=console) as other:
        return Rival(f"{other.name} (other)", other.artifact, other.runtime, specs=other.specs)
