"""``bench --on``: what one device's latency run brings, with its findings and its health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeq.benchmark.course import WholePath
from edgeq.benchmark.drift import Drift, drift_of
from edgeq.benchmark.findings import Finding, FindingKind, benchmark_findings
from edgeq.benchmark.frames import MOST_IMAGES
from edgeq.benchmark.rate import RateReport
from edgeq.cli.console import Console
from edgeq.cli.latency import BenchSettings, Latency, Rival
from edgeq.cli.layers import LAYER_RUNS, layers_json, layers_table
from edgeq.cli.remote import DeviceSide, model_of
from edgeq.cli.subject import Subject
from edgeq.data.select import evenly
from edgeq.device.answers import TimesPart, parse
from edgeq.device.client import Device
from edgeq.device.latency import BenchOrder, Entrant, bench_on
from edgeq.device.models import file_model
from edgeq.device.predictions import image_files
from edgeq.report.jsonio import to_jsonable
from edgeq.runtimes.base import AuditReport, LayerTime
from edgeq.types import Sample

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["BenchWish", "DeviceBench", "bench_report_on", "health_line"]


@dataclass(frozen=True)
class DeviceBench:
    """Latency measured on a device."""

    latency: Latency
    rate: RateReport | None
    drift: tuple[Drift, ...]
    layers: tuple[LayerTime, ...] | None
    """None: not asked for."""
    device: dict[str, Any]
    machine: dict[str, Any]
    line: str

    def to_json(self) -> dict[str, Any]:
        """The report ``latency``, with the device, rate and drift."""
        return {
            **self.latency.to_json(),
            "machine": self.machine,
            "device": self.device,
            "rate": None if self.rate is None else self.rate.to_json(),
            "drift": [entry.to_json() for entry in self.drift],
            **({} if self.layers is None else {"layers": layers_json(self.layers)}),
        }

    def tables(self) -> list[RenderableType]:
        """For the terminal."""
        parts: list[RenderableType] = [self.line, *self.latency.tables(), health_line(self.latency.health)]
        if self.rate is not None and not self.rate.late_ns:
            parts.append(_rate_line(self.rate))
        parts += [
            f"drift of {entry.name}: p50 {entry.first_p50_ms:.2f} ms in the first {entry.window_s:.0f} s, "
            f"{entry.last_p50_ms:.2f} ms in the last ({entry.change:+.1%})"
            for entry in self.drift
        ]
        if self.layers is not None:
            parts.append(layers_table(self.layers, name=self.latency.judged))
        return parts


@dataclass(frozen=True)
class BenchWish:
    """What the user asks of a latency run."""

    settings: BenchSettings
    affinity: tuple[int, ...] = ()
    rate_hz: float | None = None
    soak: bool = False
    per_layer: bool = False


def bench_report_on(
    side: DeviceSide,
    subject: Subject,
    rivals: Sequence[Rival],
    wish: BenchWish,
    *,
    samples: Sequence[Sample] = (),
    audit: AuditReport | None = None,
    console: Console,
) -> DeviceBench:
    """Subject and rivals in turns on the device, with everything around it.

    Raises:
        DeviceError: the device refuses, or its numbers cannot be.
    """
    settings, judged = wish.settings, subject.judged_name(compared=bool(rivals))
    specs = subject.specs
    own = Entrant(judged, model_of(subject), None if specs is None else specs.input, subject.size_mb)
    images = image_files([sample.path for sample in evenly(samples, MOST_IMAGES)])
    order = BenchOrder(
        entrants=(*(_entrant(rival, subject) for rival in rivals), own),
        baseline=rivals[0].name if rivals else None,
        duration_s=settings.duration_s,
        min_runs=settings.min_runs,
        threads=settings.threads,
        affinity=wish.affinity,
        memory=settings.memory,
        rate_hz=wish.rate_hz,
        path=None if specs is None else WholePath(judged, specs.input, specs.head),
        images=tuple(image.upload for image in images),
    )
    # First, since a runtime that does not tell refuses, which should not cost the minutes of the rest.
    layers = _layers_on(side, own, order) if wish.per_layer else None
    with console.progress() as progress:
        done = bench_on(side.worker, order, emulated=side.emulated is not None, progress=progress)
    drift = drift_of(done.report) if wish.soak else ()
    findings = benchmark_findings(
        done.report, int8=judged if rivals else None, audit=audit, health=done.health
    )
    latency = Latency(
        report=done.report,
        judged=judged,
        stages=done.stages,
        findings=(*_device_findings(side, drift, done.rate), *findings),
        health=done.health,
        settings=settings,
        remarks=done.remarks,
        real_images=bool(samples),
    )
    return DeviceBench(latency, done.rate, drift, layers, side.to_json(), side.machine, side.line())


def _layers_on(side: DeviceSide, own: Entrant, order: BenchOrder) -> tuple[LayerTime, ...]:
    """Executed layers of the judged artifact on the device, in order."""

    def run(device: Device) -> tuple[LayerTime, ...]:
        found: list[LayerTime] = []

        def take(what: str, data: Any) -> None:
            if what == "times":
                found.extend(
                    LayerTime(**entry.model_dump()) for entry in parse(TimesPart, data, device.name).layers
                )

        number = own.model.bring(device)
        device.upload(list(order.images[:1]))
        request = {
            "model": number,
            "threads": order.threads,
            "input": to_jsonable(own.input),
            "images": [image.sha256 for image in order.images[:1]],
            "runs": LAYER_RUNS,
        }
        device.request("profile", request, on_part=take)
        return tuple(found)

    return side.worker.do(run)


def health_line(health: Any) -> str:
    """Temperature, clock, governor, throttling, power and load in one line."""
    before, after = health.before, health.after
    words = []
    if before.temperature_c is not None and after.temperature_c is not None:
        words.append(f"{before.temperature_c:.0f} to {after.temperature_c:.0f} C")
    if after.frequency_mhz is not None:
        words.append(f"{after.frequency_mhz:.0f} MHz")
    words += [f"governor {name}" for name in health.governors]
    words += [f"{rail} {power:.2f} W" for rail, power in after.power_w.items()]
    if health.others_cores is not None:
        words.append(f"{health.others_cores:.2f} cores busy with other work")
    told = {True: "throttled", False: "not throttled", None: "no sensor tells of throttling"}
    return f"health: {', '.join([*words, told[health.throttled]])}"


def _entrant(rival: Rival, subject: Subject) -> Entrant:
    specs = rival.specs or subject.specs
    model = file_model(rival.artifact, rival.runtime.name)
    files = replace(model, options=replace(subject.options, default_float=rival.default_float))
    size = sum(file.size_bytes for file in files.files.values()) / 1e6
    return Entrant(rival.name, files, None if specs is None else specs.input, size)


def _device_findings(side: DeviceSide, drift: Sequence[Drift], rate: RateReport | None) -> list[Finding]:
    found = []
    if side.emulated is not None:
        found.append(
            Finding(
                FindingKind.EMULATED,
                f"{side.entry.name} is {side.emulated}",
                "measure speed on a real board; trust only what was computed",
            )
        )
    for entry in drift:
        if entry.drifted:
            found.append(
                Finding(
                    FindingKind.DRIFT,
                    f"{entry.name} drifted by {entry.change:+.1%} from its first to its last "
                    f"{entry.window_s:.0f} s",
                    "judge the last minute, or cool the board and measure again",
                    {"change": entry.change},
                )
            )
    if rate is not None and rate.late_ns:
        found.append(
            Finding(
                FindingKind.LATE,
                _rate_line(rate),
                "a lower rate, a smaller model, or more threads",
                {"late_count": float(len(rate.late_ns))},
            )
        )
    return found


def _rate_line(rate: RateReport) -> str:
    late, count = rate.late_ns, len(rate.response_ns)
    text = f"at {rate.rate_hz:g} frames a second {len(late)} of {count} frames were late"
    return f"{text}, by up to {max(late) / 1e6:.1f} ms" if late else text
