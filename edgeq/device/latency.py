"""Latency measured on a device: its raw samples, checked, made into the same report as one measured here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeq.benchmark.course import WholePath
from edgeq.benchmark.latency import ContestantLatency, LatencyReport
from edgeq.benchmark.rate import RateReport
from edgeq.benchmark.stages import StageLatency, StageReport
from edgeq.benchmark.steady import WarmUp
from edgeq.benchmark.telemetry import HealthRecord, HealthSample
from edgeq.device.answers import BenchResult, SeriesPart, parse
from edgeq.device.client import Device, Upload
from edgeq.device.errors import DeviceError
from edgeq.device.models import DeviceModel
from edgeq.device.results import health_record, health_samples
from edgeq.device.worker import Worker
from edgeq.report.jsonio import to_jsonable
from edgeq.types import InputSpec

__all__ = ["BenchOrder", "DeviceLatency", "Entrant", "bench_on"]

_MAX_SAMPLES = 20_000_000
_CLOCK_SLACK_S = 2.0
_CLOCK_SLACK = 0.05
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Entrant:
    """One contestant on the device."""

    name: str
    model: DeviceModel
    input: InputSpec | None
    """None: not known, so noise is fed."""
    size_mb: float | None = None


@dataclass(frozen=True)
class BenchOrder:
    """What to measure on the device."""

    entrants: tuple[Entrant, ...]
    baseline: str | None
    duration_s: float
    min_runs: int
    threads: int
    affinity: tuple[int, ...] = ()
    memory: bool = True
    rate_hz: float | None = None
    path: WholePath | None = None
    """Measured as well; None: of none of them."""
    images: tuple[Upload, ...] = ()
    warm_up_s: float = WarmUp().max_s
    """Cap on the warm-up."""


@dataclass(frozen=True)
class DeviceLatency:
    """What came back."""

    report: LatencyReport
    stages: StageReport | None
    rate: RateReport | None
    health: HealthRecord
    clock_ratio: float
    """Seconds of the device for one of this machine, over the measurement."""
    remarks: tuple[str, ...]


class _Collected:
    """Parts of an answer, put together; bounded."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.series: dict[str, list[int]] = {}
        self.samples: list[HealthSample] = []
        self.health: HealthRecord | None = None
        self.device_s = 0.0
        self.host_s = 0.0
        self._count = 0

    def take(self, what: str, data: Any) -> None:
        if what == "series":
            part = parse(SeriesPart, data, self._device)
            self._count += len(part.values)
            self._bound()
            self.series.setdefault(part.name, []).extend(part.values)
        elif what == "measuring":
            self.host_s = -time.monotonic()
        elif what == "measured":
            self.host_s += time.monotonic()
            value = data.get("elapsed_s") if isinstance(data, dict) else None
            self.device_s = float(value) if isinstance(value, (int, float)) else 0.0
        elif what == "health samples":
            more = health_samples(data, self._device)
            # A sample is an object of a dozen numbers.
            self._count += 100 * len(more)
            self._bound()
            self.samples += more
        elif what == "health":
            self.health = health_record(data, self._device)

    def _bound(self) -> None:
        if self._count > _MAX_SAMPLES:
            raise DeviceError(f"{self._device}: sends samples without end")


def bench_on(
    worker: Worker, order: BenchOrder, *, emulated: bool, progress: Progress | None = None
) -> DeviceLatency:
    """Measure on the device; a run that was cut is made anew, whole.

    Args:
        worker: the device.
        order: what to measure.
        emulated: an emulated clock may run as it likes.
        progress: told stage, done and total.

    Raises:
        DeviceError: the device refuses, its clock jumped, or its answer cannot be.
    """

    def run(device: Device) -> tuple[BenchResult, _Collected]:
        numbers = {entrant.name: entrant.model.bring(device) for entrant in order.entrants}
        device.upload(list(order.images))
        collected = _Collected(device.name)
        answer = device.request(
            "bench", _request(order, numbers), on_part=collected.take, on_progress=progress
        )
        return parse(BenchResult, answer, device.name), collected

    result, collected = worker.do(run)
    _check_clock(collected, worker.name, emulated=emulated)
    return _report(result, collected, order, worker.name)


def _request(order: BenchOrder, numbers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "contestants": [
            {
                "name": entrant.name,
                "model": numbers[entrant.name],
                "input": to_jsonable(entrant.input),
            }
            for entrant in order.entrants
        ],
        "baseline": order.baseline,
        "duration_s": order.duration_s,
        "min_runs": order.min_runs,
        "threads": order.threads,
        "affinity": list(order.affinity),
        "memory": order.memory,
        "rate_hz": order.rate_hz,
        "warm_up_s": order.warm_up_s,
        "path": to_jsonable(order.path),
        "images": [image.sha256 for image in order.images],
    }


def _check_clock(collected: _Collected, name: str, *, emulated: bool) -> None:
    """Hold the device's clock against this machine's, over the same minutes.

    Raises:
        DeviceError: they disagree by more than a network's delays explain.
    """
    apart_s = abs(collected.device_s - collected.host_s)
    if emulated or apart_s <= max(_CLOCK_SLACK_S, _CLOCK_SLACK * collected.host_s):
        return
    raise DeviceError(
        f"{name}: its clock counted {collected.device_s:.1f} s while this machine's counted "
        f"{collected.host_s:.1f} s, so its milliseconds cannot be believed",
        fix="see what sets its clock (a suspended or emulated machine, a broken timer), then measure again",
    )


def _report(result: BenchResult, collected: _Collected, order: BenchOrder, name: str) -> DeviceLatency:
    names = [entrant.name for entrant in order.entrants]
    if [entry.name for entry in result.contestants] != names or collected.health is None:
        raise DeviceError(f"{name}: its latency report lacks a part")
    contestants = []
    for entry, entrant in zip(result.contestants, order.entrants, strict=True):
        contestants.append(
            ContestantLatency(
                name=entry.name,
                wall_ns=_positive(collected.series.get(f"wall {entry.name}"), name),
                cpu_ns=tuple(collected.series.get(f"cpu {entry.name}", ())),
                warm_up=entry.warm_up.record,
                details=entry.details,
                peak_memory_mb=entry.peak_memory_mb,
                size_mb=entrant.size_mb,
            )
        )
    counts = {len(entry.wall_ns) for entry in contestants}
    counts |= {len(entry.cpu_ns) for entry in contestants if entry.cpu_ns}
    spent_s = sum(sum(entry.wall_ns) for entry in contestants) / 1e9
    if len(counts) != 1 or spent_s > collected.device_s * 1.01 + 0.1:
        raise DeviceError(f"{name}: its samples do not fit together ({counts} runs, {spent_s:.1f} s)")
    report = LatencyReport.of(
        contestants,
        baseline=order.baseline,
        duration_s=result.duration_s,
        order=result.order,
        seed=result.seed,
        block=result.block,
    )
    return DeviceLatency(
        report=report,
        stages=_stages(result, collected, name),
        rate=_rate(result, collected, name),
        health=replace(collected.health, during=tuple(collected.samples)),
        clock_ratio=collected.device_s / collected.host_s if collected.host_s > 0 else 1.0,
        remarks=tuple(result.remarks),
    )


def _stages(result: BenchResult, collected: _Collected, name: str) -> StageReport | None:
    if result.stages is None:
        return None
    parts = [
        StageLatency(stage, _positive(collected.series.get(f"stage {stage}"), name))
        for stage in result.stages.names
    ]
    if len({len(part.wall_ns) for part in parts}) != 1:
        raise DeviceError(f"{name}: the stages of a frame have different numbers of samples")
    total = tuple(sum(values) for values in zip(*(part.wall_ns for part in parts), strict=True))
    return StageReport(tuple(parts), StageLatency("total", total), result.stages.warm_up.record)


def _rate(result: BenchResult, collected: _Collected, name: str) -> RateReport | None:
    if result.rate is None:
        return None
    return RateReport(result.rate.rate_hz, _positive(collected.series.get("rate"), name))


def _positive(values: Sequence[int] | None, name: str) -> tuple[int, ...]:
    """Samples that can be: there are some, and no time runs backwards.

    Raises:
        DeviceError: they cannot be.
    """
    if not values or min(values) <= 0:
        raise DeviceError(
            f"{name}: its samples hold times of 0 or less: its clock jumped, or they are made up",
            fix="measure again; see what sets the device's clock",
        )
    return tuple(values)
