"""The machine's health before, during and after a measurement, and whether it throttled.

`Telemetry` samples in a background thread, once a second by default: a reading takes well under a
millisecond, so at most one run in hundreds feels it, and it would show as an outlier, not in the median.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from types import TracebackType

from edgeq.benchmark.machine import CpuTimes, Machine

__all__ = ["HealthRecord", "HealthSample", "Telemetry", "pi_flag_names"]

_FREQUENCY_DROP = 0.10
_MIN_DROP_SAMPLES = 6
_SLOWING_TRIPS = ("passive", "hot", "critical")
_PI_FLAGS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
_BEFORE_S = 0.2
_PI_SINCE_BOOT_SHIFT = 16


@dataclass(frozen=True)
class HealthSample:
    """One reading; None: the machine does not tell."""

    at_s: float
    """Seconds since the telemetry started."""
    others_cores: float | None
    """Cores kept busy by other processes since the reading before; None for the first."""
    steal_cores: float | None
    """Cores taken by other virtual machines on the host since the reading before."""
    frequency_mhz: float | None
    temperature_c: float | None
    """Of the hottest zone."""
    zones_c: Mapping[str, float]
    """Temperature of each zone by its name."""
    rss_mb: float | None
    pi_flags: int | None
    power_w: Mapping[str, float] = field(default_factory=dict)
    """Of each rail with a sensor."""


@dataclass(frozen=True)
class HealthRecord:
    """Health of the machine around a measurement."""

    before: HealthSample
    during: tuple[HealthSample, ...]
    after: HealthSample
    governors: tuple[str, ...]
    max_frequency_mhz: float | None
    peak_rss_mb: float | None
    """High-water mark of this process, all contestants together: see `edgeq.benchmark.memory` for one."""
    throttling: tuple[str, ...]
    """Evidence of throttling in words; empty: none was seen."""
    sensors: tuple[str, ...]
    """What this machine tells of clock, temperature and throttling; empty: nothing can be said of them."""

    @property
    def throttled(self) -> bool | None:
        """Whether the machine throttled; None: it has no sensor that would show it."""
        if self.throttling:
            return True
        return False if self.sensors else None

    @property
    def others_cores(self) -> float | None:
        """Median of the cores kept busy by others during the measurement."""
        values = [s.others_cores for s in (*self.during, self.after) if s.others_cores is not None]
        return median(values) if values else None

    @property
    def steal_cores(self) -> float | None:
        """Median of the cores taken by other virtual machines during the measurement."""
        values = [s.steal_cores for s in (*self.during, self.after) if s.steal_cores is not None]
        return median(values) if values else None

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "before": asdict(self.before),
            "during": [asdict(sample) for sample in self.during],
            "after": asdict(self.after),
            "governors": list(self.governors),
            "max_frequency_mhz": self.max_frequency_mhz,
            "peak_rss_mb": self.peak_rss_mb,
            "others_cores": self.others_cores,
            "steal_cores": self.steal_cores,
            "throttled": self.throttled,
            "throttling": list(self.throttling),
            "sensors": list(self.sensors),
        }


class Telemetry:
    """Context manager that samples while the block runs; ``record`` is there afterwards.

    ::

        with Telemetry() as telemetry:
            report = measure(...)
        health = telemetry.record
    """

    def __init__(self, *, interval_s: float = 1.0, machine: Machine | None = None) -> None:
        self._interval_s = interval_s
        self._machine = machine or Machine()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeq-telemetry", daemon=True)
        self._during: list[HealthSample] = []
        self._record: HealthRecord | None = None

    def __enter__(self) -> Telemetry:
        self._start_s = time.monotonic()
        self._count_before = self._machine.throttle_count()
        self._last_times = self._machine.cpu_times()
        # The load of others is a difference between two readings, so "before" takes a moment.
        self._stop.wait(_BEFORE_S)
        self._before = self._sample(ask_firmware=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._record = self._make_record(self._sample(ask_firmware=True))

    @property
    def record(self) -> HealthRecord:
        """What was seen.

        Raises:
            RuntimeError: the block has not ended.
        """
        if self._record is None:
            raise RuntimeError("the health record is there when the telemetry's block has ended")
        return self._record

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._during.append(self._sample())

    def _sample(self, *, ask_firmware: bool = False) -> HealthSample:
        times, last = self._machine.cpu_times(), self._last_times
        self._last_times = times
        temperatures = self._machine.temperatures_c()
        return HealthSample(
            at_s=time.monotonic() - self._start_s,
            others_cores=_others(last, times),
            steal_cores=_steal(last, times),
            frequency_mhz=self._machine.frequency_mhz(),
            temperature_c=max(temperatures.values()) if temperatures else None,
            zones_c=temperatures,
            rss_mb=self._machine.rss_mb(),
            pi_flags=self._machine.pi_throttled(ask_firmware=ask_firmware),
            power_w=self._machine.power_w(),
        )

    def _make_record(self, after: HealthSample) -> HealthRecord:
        samples = (self._before, *self._during, after)
        evidence = (
            *_frequency_evidence(self._during),
            *_temperature_evidence(self._machine, samples),
            *_pi_evidence(samples),
            *_count_evidence(self._count_before, self._machine.throttle_count()),
        )
        return HealthRecord(
            before=self._before,
            during=tuple(self._during),
            after=after,
            governors=self._machine.governors(),
            max_frequency_mhz=self._machine.max_frequency_mhz(),
            peak_rss_mb=self._machine.peak_rss_mb(),
            throttling=evidence,
            sensors=_sensors(self._machine, samples),
        )


_SHORTEST_S = 0.05
"""Shares of less than 50 ms are noise: the kernel counts in ticks of 10 ms."""


def _others(last: CpuTimes | None, now: CpuTimes | None) -> float | None:
    if last is None or now is None or now.at_s - last.at_s < _SHORTEST_S:
        return None
    busy_s = (now.busy_s - last.busy_s) - (now.own_s - last.own_s)
    return max(0.0, busy_s / (now.at_s - last.at_s))


def _steal(last: CpuTimes | None, now: CpuTimes | None) -> float | None:
    if last is None or now is None or now.at_s - last.at_s < _SHORTEST_S:
        return None
    return max(0.0, (now.steal_s - last.steal_s) / (now.at_s - last.at_s))


def _sensors(machine: Machine, samples: tuple[HealthSample, ...]) -> tuple[str, ...]:
    """Which readings that can show throttling this machine has.

    A clock from /proc/cpuinfo alone does not count: in a virtual machine it is a constant.
    """
    found = []
    if machine.max_frequency_mhz() is not None:
        found.append("clock")
    if any(point.kind in _SLOWING_TRIPS for point in machine.trip_points()):
        found.append("temperature")
    if any(sample.pi_flags is not None for sample in samples):
        found.append("firmware flags")
    if machine.throttle_count() is not None:
        found.append("throttle counter")
    return tuple(found)


def _frequency_evidence(during: list[HealthSample]) -> list[str]:
    """The clock of the last third against the first third's, under the same load."""
    clocks = [sample.frequency_mhz for sample in during if sample.frequency_mhz is not None]
    if len(clocks) < _MIN_DROP_SAMPLES:
        return []
    third = len(clocks) // 3
    first, last = median(clocks[:third]), median(clocks[-third:])
    if last >= first * (1 - _FREQUENCY_DROP):
        return []
    return [f"the clock fell from {first:.0f} to {last:.0f} MHz during the run"]


def _temperature_evidence(machine: Machine, samples: tuple[HealthSample, ...]) -> list[str]:
    """A zone at or over its own lowest point at which the kernel slows the machine down."""
    evidence: list[str] = []
    limits = [point for point in machine.trip_points() if point.kind in _SLOWING_TRIPS]
    for zone in sorted({point.zone for point in limits}):
        lowest = min((p for p in limits if p.zone == zone), key=lambda point: point.temperature_c)
        hottest = max((s.zones_c[zone] for s in samples if zone in s.zones_c), default=None)
        if hottest is not None and hottest >= lowest.temperature_c:
            evidence.append(
                f"{zone} reached {hottest:.0f} C; its {lowest.kind} trip point "
                f"is {lowest.temperature_c:.0f} C"
            )
    return evidence


def pi_flag_names(flags: int) -> tuple[str, ...]:
    """The Raspberry Pi's throttle flags in words, those of now and those since boot."""
    now = tuple(name for bit, name in _PI_FLAGS.items() if flags >> bit & 1)
    past = tuple(
        f"{name} since boot" for bit, name in _PI_FLAGS.items() if flags >> bit >> _PI_SINCE_BOOT_SHIFT & 1
    )
    return now + past


def _pi_evidence(samples: tuple[HealthSample, ...]) -> list[str]:
    """Flags raised in any sample, or whose since-boot bit came up between the first and the last."""
    flags = [sample.pi_flags for sample in samples if sample.pi_flags is not None]
    if not flags:
        return []
    now = 0
    for value in flags:
        now |= value & 0xF
    came_up = (flags[-1] & ~flags[0]) >> _PI_SINCE_BOOT_SHIFT
    raised = now | (came_up & 0xF)
    return [f"the firmware reports: {name}" for bit, name in _PI_FLAGS.items() if raised >> bit & 1]


def _count_evidence(before: int | None, after: int | None) -> list[str]:
    if before is None or after is None or after <= before:
        return []
    return [f"the CPU counted {after - before} thermal throttle events"]
