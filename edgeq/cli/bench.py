"""``edgeq bench``: how fast float and INT8 are here, measured in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import (
    FloatSource,
    OutputFlags,
    RuntimeOptions,
    SpecFlags,
    Split,
    SubjectPath,
    Threads,
    command,
)
from edgeq.cli.onflags import On
from edgeq.cli.values import duration_s

if TYPE_CHECKING:
    from edgeq.cli.console import Console
    from edgeq.cli.latency import Rival
    from edgeq.cli.latency_on import BenchWish, DeviceBench
    from edgeq.cli.subject import Subject
    from edgeq.runtimes.base import Runtime
    from edgeq.types import Sample

__all__ = ["bench", "float_rivals"]


@command
def bench(
    *,
    subject: SubjectPath,
    against: Annotated[
        str,
        typer.Option("--against", metavar="float|OTHER", help="The float model, or another bundle or model."),
    ] = "float",
    float_source: FloatSource = None,
    threads: Threads = 1,
    duration: Annotated[
        float, typer.Option("--duration", parser=duration_s, metavar="TIME", help="In all: 10s, 2m.")
    ] = 10.0,
    min_runs: Annotated[
        int, typer.Option("--min-runs", min=1, help="Of each model at least; 64 quote p90, 662 quote p99.")
    ] = 64,
    data: Annotated[
        Path | None, typer.Option("--data", help="Real images for the whole path: data set or folder.")
    ] = None,
    split: Split = "val",
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also the time, precision and kernel of each layer.")
    ] = False,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure peak memory.")] = True,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep reports/latency.json in the bundle.")
    ] = True,
    runtime_option: RuntimeOptions = None,
    on: On = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0.01, max=10000, help="Also frames at this rate, a second: how many late."
        ),
    ] = None,
    soak: Annotated[
        float | None,
        typer.Option(
            "--soak", parser=duration_s, metavar="TIME", help="Run so long; first minute against last: 10m."
        ),
    ] = None,
    affinity: Annotated[
        str | None, typer.Option("--affinity", metavar="N,N", help="Run on these cores only.")
    ] = None,
    spec: SpecFlags,
    output: OutputFlags,
) -> int:
    """Latency, CPU time and memory of INT8 against float."""
    from edgeq.cli.audit import audit_of
    from edgeq.cli.console import Console
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.latency import BenchSettings, measure_latency
    from edgeq.cli.latency_on import BenchWish
    from edgeq.cli.layers import layer_times, layers_json, layers_table
    from edgeq.cli.opening import open_subject
    from edgeq.data.dataset import open_dataset
    from edgeq.errors import InputError

    console = Console(output)
    cores = _cores(affinity)
    if on is None and (rate is not None or soak is not None or cores):
        # The agent can do these; it runs on this machine as on any other.
        on = ["local"]
    with (
        tempfile.TemporaryDirectory(prefix="edgeq-") as folder,
        open_subject(
            subject,
            console=console,
            overrides=spec.overrides(),
            float_source=float_source,
            data=data,
            installed=not on,
            options=runtime_option,
        ) as judged,
    ):
        rivals = (
            float_rivals(judged, Path(folder), console)
            if against == "float"
            else [_other(Path(against), console, installed=not on)]
        )
        samples = () if data is None else open_dataset(data, split=split, labels_required=False).samples
        settings = BenchSettings(threads, duration if soak is None else soak, min_runs, memory)
        if on and judged.options.performance_hint == "throughput":
            raise InputError("a device's agent measures latency alone", fix="leave out hint=throughput")
        if on:
            wish = BenchWish(settings, cores, rate, soak is not None, per_layer)
            return _on_devices(on, judged, rivals, wish, samples, console, save=save)
        latency = measure_latency(
            judged,
            rivals,
            settings=settings,
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
    return 0


def _cores(text: str | None) -> tuple[int, ...]:
    """Numbers of ``2,3``."""
    try:
        cores = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        cores = (-1,)
    if any(not 0 <= core < 4096 for core in cores):
        raise typer.BadParameter(f"{text!r} are no cores such as 2,3", param_hint="--affinity")
    return cores


def _on_devices(
    on: list[str],
    subject: Subject,
    rivals: list[Rival],
    wish: BenchWish,
    samples: Sequence[Sample],
    console: Console,
    *,
    save: bool,
) -> int:
    """The same on devices, one beside the other."""
    from edgeq.cli.audit import audit_at
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.latency_on import bench_report_on
    from edgeq.cli.onflags import each_device
    from edgeq.cli.remote import at_work, warn_of_architecture
    from edgeq.device.fleet import DeviceEntry, devices_named

    many = len(devices_named(on)) > 1
    rows: list[tuple[str, DeviceBench]] = []

    def job(entry: DeviceEntry) -> DeviceBench:
        runtimes = sorted({subject.runtime.name, *(rival.runtime.name for rival in rivals)})
        with at_work(entry, runtimes, console, need=runtimes) as side:
            warn_of_architecture(subject, side, console)
            audit = audit_at(side, subject, threads=wish.settings.threads)
            return bench_report_on(side, subject, rivals, wish, samples=samples, audit=audit, console=console)

    def show(entry: DeviceEntry, result: DeviceBench) -> None:
        rows.append((entry.name, result))
        console.show(*result.tables())
        if save:
            name = f"latency-{entry.slug}" if many else "latency"
            keep_reports(subject.bundle, {name: result.to_json()}, console)

    code = each_device(on, job, console, show=show, document=lambda entry, result: result.to_json())
    if many and rows:
        console.show(_fleet_table(rows))
    return code


def _fleet_table(rows: list[tuple[str, DeviceBench]]) -> Any:
    """One line for each device."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from edgeq.report.numbers import number, plain

    table = Table(title="Devices", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("device", "p50, ms", "p90", "p99", "throttled", "remark"):
        table.add_column(head, justify="left" if head in ("device", "remark") else "right")
    for name, result in rows:
        latency = result.latency
        values = latency.report.contestant(latency.judged).to_json()
        told = {True: "yes", False: "no", None: "not known"}[latency.health.throttled]
        remark = "emulated: correctness only, not speed" if result.device["emulated"] else ""
        cells = [number(values[key]) for key in ("p50_ms", "p90_ms", "p99_ms")]
        table.add_row(*map(Text, [plain(name), *cells, told, remark]))
    return table


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


def _other(path: Path, console: Console, *, installed: bool) -> Rival:
    """Another bundle's artifact or a model file.

    ``installed``: a bundle's runtime has to be here; not where only a device runs it.
    """
    from edgeq.cli.latency import Rival
    from edgeq.cli.opening import open_subject

    with open_subject(path, console=console, installed=installed) as other:
        return Rival(f"{other.name} (other)", other.artifact, other.runtime, specs=other.specs)
