"""``edgeq gate``: pass or fail, one line per limit, exit code 3 on failure."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import (
    BudgetFlags,
    FloatSource,
    ImageCount,
    OutputFlags,
    PostFlags,
    RuntimeOptions,
    SpecFlags,
    Split,
    SubjectPath,
    Threads,
    command,
)
from edgeq.cli.onflags import On
from edgeq.cli.values import duration_s
from edgeq.errors import BudgetError

if TYPE_CHECKING:
    from edgeq.cli.console import Console
    from edgeq.cli.measured import GateSettings
    from edgeq.cli.subject import Subject
    from edgeq.gate import Budget

__all__ = ["gate"]


@command
def gate(
    *,
    subject: SubjectPath,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="NAME|FILE", help="Its limits apply where no flag is given."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Labelled images: measure what is missing, now.")
    ] = None,
    split: Split = "val",
    images: ImageCount = None,
    float_source: FloatSource = None,
    threads: Threads = 1,
    duration: Annotated[
        float, typer.Option("--duration", parser=duration_s, metavar="TIME", help="Of a latency run.")
    ] = 10.0,
    save: Annotated[bool, typer.Option("--save/--no-save", help="Keep the reports in the bundle.")] = True,
    runtime_option: RuntimeOptions = None,
    on: On = None,
    limits: BudgetFlags,
    post: PostFlags,
    spec: SpecFlags,
    output: OutputFlags,
) -> int:
    """Pass or fail against a budget; not measured is failed."""
    from edgeq.cli.budgets import budget_for
    from edgeq.cli.console import Console
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.measured import GateSettings, measured_from
    from edgeq.cli.opening import open_subject
    from edgeq.gate import check
    from edgeq.report.terminal import gate_table

    console = Console(output)
    flags = limits.budget()
    with open_subject(
        subject,
        console=console,
        overrides=spec.overrides(),
        float_source=float_source,
        data=data,
        installed=not on,
        options=runtime_option,
    ) as judged:
        budget = budget_for(flags, judged, target, console)
        how = GateSettings(data, split, images, threads, duration, post.post_process())
        if on:
            return _on_devices(on, judged, budget, how, console, save=save)
        known, fresh = _reports(judged, budget, how, console)
        measured = measured_from(known.get("accuracy"), known.get("latency"), size_mb=judged.size_mb)
        report = check(budget, measured)
        if (known.get("accuracy") or {}).get("simulated"):
            console.warn(f"accuracy is {known['accuracy']['simulated']}")
        console.show(gate_table(report))
        if save:
            keep_reports(judged.bundle, {**fresh, "gate": report.to_json()}, console)
        console.emit({**report.to_json(), "warnings": console.warnings})
    return 0 if report.passed else BudgetError.exit_code


def _on_devices(
    on: list[str], subject: Subject, budget: Budget, how: GateSettings, console: Console, *, save: bool
) -> int:
    """The gate on devices: what they can measure is measured there, now; each of them has to pass."""
    from edgeq.cli.gate_on import DeviceGate, gate_on, host_side
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.onflags import each_device
    from edgeq.device.fleet import DeviceEntry, devices_named
    from edgeq.report.terminal import gate_table

    many = len(devices_named(on)) > 1
    failed: list[str] = []

    def job(entry: DeviceEntry) -> DeviceGate:
        return gate_on(entry, subject, budget, how, host, console)

    def show(entry: DeviceEntry, result: DeviceGate) -> None:
        if not result.report.passed:
            failed.append(entry.name)
        console.show(*result.tables, gate_table(result.report))
        if save:
            end = f"-{entry.slug}" if many else ""
            reports = {f"{name}{end}": data for name, data in result.reports.items()}
            keep_reports(subject.bundle, reports, console)

    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        host = host_side(subject, budget, how, console, folder=Path(folder))
        code = each_device(on, job, console, show=show, document=lambda entry, result: result.to_json())
    return BudgetError.exit_code if failed and code == 0 else code


def _reports(
    subject: Subject, budget: Budget, how: GateSettings, console: Console
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Accuracy and latency as far as they are known or can be measured now; and those that are new."""
    from edgeq.cli.measured import needs_accuracy, needs_latency

    known: dict[str, Any] = {}
    if subject.bundle is not None:
        known = {name: subject.bundle.report(name) for name in ("accuracy", "latency")}
    fresh: dict[str, Any] = {}
    if how.data is not None and needs_accuracy(budget) and known.get("accuracy") is None:
        fresh["accuracy"] = _accuracy(subject, how, how.data, console)
    if how.data is not None and needs_latency(budget) and known.get("latency") is None:
        fresh["latency"] = _latency(subject, how, console)
    return {**known, **fresh}, fresh


def _accuracy(subject: Subject, how: GateSettings, data: Path, console: Console) -> dict[str, Any]:
    from edgeq.cli.accuracy import measure_accuracy
    from edgeq.cli.datasets import open_evaluation

    calibration = None if subject.bundle is None else subject.bundle.manifest.calibration
    dataset = open_evaluation(
        data, subject.known.head, console, split=how.split, images=how.images, calibration=calibration
    )
    accuracy = measure_accuracy(subject, dataset, post=how.post, console=console)
    console.show(*accuracy.tables())
    return accuracy.to_json()


def _latency(subject: Subject, how: GateSettings, console: Console) -> dict[str, Any]:
    from edgeq.cli.audit import audit_of
    from edgeq.cli.bench import float_rivals
    from edgeq.cli.latency import BenchSettings, measure_latency

    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        latency = measure_latency(
            subject,
            float_rivals(subject, Path(folder), console),
            settings=BenchSettings(how.threads, how.duration_s),
            audit=audit_of(subject, threads=how.threads),
            console=console,
        )
    console.show(*latency.tables())
    return latency.to_json()
