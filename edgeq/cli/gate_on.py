"""The gate with a device's own numbers: measured there now, never taken from an earlier run elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.cli.accuracy_on import HostSide, accuracy_on
from edgeq.cli.audit import audit_at
from edgeq.cli.bench import float_rivals
from edgeq.cli.console import Console
from edgeq.cli.datasets import open_evaluation
from edgeq.cli.latency import BenchSettings
from edgeq.cli.latency_on import BenchWish, bench_report_on
from edgeq.cli.measured import GateSettings, measured_from, needs_accuracy, needs_latency
from edgeq.cli.remote import DeviceSide, at_work, warn_of_architecture
from edgeq.cli.subject import Subject
from edgeq.device.fleet import DeviceEntry
from edgeq.gate import Budget, GateReport, Measured, check
from edgeq.types import Dataset

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["DeviceGate", "gate_on", "host_side"]

_EMULATED_RUNS = 11
_SPEED = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "speedup")


@dataclass(frozen=True)
class DeviceGate:
    """The outcome on one device."""

    report: GateReport
    reports: Mapping[str, Any]
    """What was measured, and the gate itself, by name."""
    tables: tuple[RenderableType, ...]
    device: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report ``gate``, with the device."""
        return {**self.report.to_json(), "device": dict(self.device)}


def host_side(
    subject: Subject, budget: Budget, settings: GateSettings, console: Console, *, folder: Path
) -> tuple[Dataset, HostSide] | None:
    """Images and what is computed here, once for all devices; None: accuracy is not measured.

    ``folder`` is temporary, for what is sent for the parity check.
    """
    if settings.data is None or not needs_accuracy(budget):
        return None
    calibration = None if subject.bundle is None else subject.bundle.manifest.calibration
    dataset = open_evaluation(
        settings.data, subject.known.head, console, split=settings.split, images=settings.images,
        calibration=calibration,
    )  # fmt: skip
    return dataset, HostSide.of(subject, dataset, settings.post, console, folder=folder)


def gate_on(
    entry: DeviceEntry,
    subject: Subject,
    budget: Budget,
    settings: GateSettings,
    host: tuple[Dataset, HostSide] | None,
    console: Console,
) -> DeviceGate:
    """Measure on the device and hold it against the budget.

    Speed that an emulated board measured passes no limit: it counts as not measured.

    Raises:
        DeviceError: the device refuses, or does not answer as a device does.
    """
    reports: dict[str, Any] = {}
    tables: list[RenderableType] = []
    with at_work(entry, [subject.runtime.name], console, need=[subject.runtime.name]) as side:
        warn_of_architecture(subject, side, console)
        if host is not None:
            accuracy = accuracy_on(side, subject, host[0], host[1], settings.post, console)
            reports["accuracy"], tables = accuracy.to_json(), [*tables, *accuracy.tables()]
        if needs_latency(budget):
            reports["latency"], made = _latency(side, subject, settings, console)
            tables += made
        known = reports.get("accuracy")
        if known is None and subject.bundle is not None and needs_accuracy(budget):
            known = subject.bundle.report("accuracy")
            if known is not None:
                where = (known.get("device") or {}).get("name", "the host")
                console.warn(
                    f"accuracy is that of an earlier run on {where}; --data measures it on {entry.name}"
                )
        measured = measured_from(known, reports.get("latency"), size_mb=subject.size_mb)
        measured = _without_emulated_speed(measured, budget, side, console)
        device = side.to_json()
    report = check(budget, measured)
    reports["gate"] = {**report.to_json(), "device": device}
    return DeviceGate(report, reports, tuple(tables), device)


def _latency(
    side: DeviceSide, subject: Subject, settings: GateSettings, console: Console
) -> tuple[dict[str, Any], list[RenderableType]]:
    wanted = BenchSettings(settings.threads, settings.duration_s)
    if side.emulated is not None:
        # Its inferences take seconds, and its speed passes no limit anyway.
        wanted = replace(wanted, min_runs=_EMULATED_RUNS)
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        bench = bench_report_on(
            side,
            subject,
            float_rivals(subject, Path(folder), console),
            BenchWish(wanted),
            audit=audit_at(side, subject, threads=settings.threads),
            console=console,
        )
    return bench.to_json(), bench.tables()


def _without_emulated_speed(
    measured: Measured, budget: Budget, side: DeviceSide, console: Console
) -> Measured:
    if side.emulated is None:
        return measured
    limited = [
        name
        for name in _SPEED
        if getattr(budget, f"max_{name}", getattr(budget, f"min_{name}", None)) is not None
    ]
    if limited:
        console.warn(
            f"{side.entry.name} is emulated: its speed is not measured, so limits of speed cannot be passed"
        )
    return replace(measured, **dict.fromkeys(_SPEED))
