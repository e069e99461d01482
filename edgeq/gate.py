"""The gate: what was measured against the budget, one line per limit, no limit passed by silence.

Standard library only. Drops are in points (mAP x 100, top-1 x 100), sizes and memory in MB of 10^6 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from enum import Enum

from edgeq.errors import InputError
from edgeq.types import Task

__all__ = ["Budget", "GateLine", "GateReport", "Measured", "Verdict", "check", "merge"]


@dataclass(frozen=True)
class Budget:
    """Limits; None: not limited.

    Raises:
        InputError: a limit that is not a finite number, or a negative one that must not be.
    """

    max_map_drop: float | None = None
    """Points of mAP 50-95 x 100."""
    max_top1_drop: float | None = None
    """Points of top-1 x 100."""
    min_map: float | None = None
    """mAP 50-95 of the INT8 model, 0..1."""
    max_p50_ms: float | None = None
    max_p90_ms: float | None = None
    max_p95_ms: float | None = None
    max_p99_ms: float | None = None
    max_size_mb: float | None = None
    """Of what is shipped: the artifact."""
    max_memory_mb: float | None = None
    """Peak of a process that runs the artifact."""
    min_speedup: float | None = None
    """Against the float model in the same run, by wall time."""
    refuse_throttled: bool = False
    """A measurement during which the machine throttled, or could not tell, fails."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "refuse_throttled" or value is None:
                continue
            if not math.isfinite(value) or value < 0:
                raise InputError(f"the limit {field.name} must be a number of at least 0, not {value}")
        if self.min_map is not None and self.min_map > 1:
            raise InputError(
                f"the limit min_map is a mAP between 0 and 1, not {self.min_map}",
                fix=f"--min-map {self.min_map / 100:g}",
            )

    @property
    def drop_points(self) -> float | None:
        """The limit on the drop; of a budget that is for one task."""
        return self.max_top1_drop if self.max_map_drop is None else self.max_map_drop

    @property
    def empty(self) -> bool:
        """Whether nothing is limited."""
        return self == Budget()


@dataclass(frozen=True)
class Measured:
    """What was measured; None: it was not."""

    map_drop_points: float | None = None
    map_drop_interval_points: tuple[float, float] | None = None
    top1_drop_points: float | None = None
    top1_drop_interval_points: tuple[float, float] | None = None
    map50_95: float | None = None
    p50_ms: float | None = None
    p50_interval_ms: tuple[float, float] | None = None
    p90_ms: float | None = None
    p90_interval_ms: tuple[float, float] | None = None
    p95_ms: float | None = None
    p95_interval_ms: tuple[float, float] | None = None
    p99_ms: float | None = None
    p99_interval_ms: tuple[float, float] | None = None
    size_mb: float | None = None
    memory_mb: float | None = None
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None
    throttled: bool | None = None
    """None: no sensor told."""


class Verdict(str, Enum):
    """Outcome of one limit."""

    PASS = "pass"
    FAIL = "fail"
    NOT_MEASURED = "not-measured"
    """Asked for and not measured: counts as failed."""


@dataclass(frozen=True)
class GateLine:
    """One limit and how it went."""

    limit: str
    """The budget's field: ``max_map_drop``."""
    bound: float
    measured: float | None
    unit: str
    verdict: Verdict
    remark: str = ""

    @property
    def passed(self) -> bool:
        """Whether the limit is kept."""
        return self.verdict is Verdict.PASS

    @property
    def sense(self) -> str:
        """``<=`` for a greatest, ``>=`` for a least value."""
        return ">=" if self.limit.startswith("min_") else "<="

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "limit": self.limit,
            "sense": self.sense,
            "bound": self.bound,
            "measured": self.measured,
            "unit": self.unit,
            "verdict": self.verdict.value,
            "remark": self.remark,
        }


@dataclass(frozen=True)
class GateReport:
    """All lines."""

    lines: tuple[GateLine, ...]

    @property
    def passed(self) -> bool:
        """Whether every limit is kept and there is at least one."""
        return bool(self.lines) and all(line.passed for line in self.lines)

    @property
    def failures(self) -> tuple[GateLine, ...]:
        """The lines that did not pass."""
        return tuple(line for line in self.lines if not line.passed)

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {"passed": self.passed, "lines": [line.to_json() for line in self.lines]}


@dataclass(frozen=True)
class _Rule:
    """Which measured field a limit judges, how to get it, and how to say that it cannot be told apart."""

    measured: str
    interval: str | None
    unit: str
    how: str


_EVALUATE = "run 'edgeq evaluate' on the bundle"
_BENCH = "run 'edgeq bench' on the bundle"
_LONGER = "run 'edgeq bench' on the bundle, long enough to quote this percentile (--duration)"
_RULES = {
    "max_map_drop": _Rule("map_drop_points", "map_drop_interval_points", "points", _EVALUATE),
    "max_top1_drop": _Rule("top1_drop_points", "top1_drop_interval_points", "points", _EVALUATE),
    "min_map": _Rule("map50_95", None, "", _EVALUATE),
    "max_p50_ms": _Rule("p50_ms", "p50_interval_ms", "ms", _LONGER),
    "max_p90_ms": _Rule("p90_ms", "p90_interval_ms", "ms", _LONGER),
    "max_p95_ms": _Rule("p95_ms", "p95_interval_ms", "ms", _LONGER),
    "max_p99_ms": _Rule("p99_ms", "p99_interval_ms", "ms", _LONGER),
    "max_size_mb": _Rule("size_mb", None, "MB", "give the bundle or the artifact's path"),
    "max_memory_mb": _Rule("memory_mb", None, "MB", _BENCH),
    "min_speedup": _Rule("speedup", "speedup_interval", "x", f"{_BENCH} against the float model"),
}


def merge(flags: Budget, default: Budget, *, task: Task | None = None) -> Budget:
    """The user's limits over a target's defaults.

    Args:
        flags: what the user asked for; wins field by field.
        default: the target's. Its drop limit for the other task does not apply and goes; a limit that
            the user set for the wrong task stays, and fails as not measured.
        task: what the model does; None: the defaults are taken as they are.
    """
    if task is Task.DETECT:
        default = replace(default, max_top1_drop=None)
    elif task is Task.CLASSIFY:
        default = replace(default, max_map_drop=None, min_map=None)
    merged = {
        name: getattr(flags, name) if getattr(flags, name) is not None else getattr(default, name)
        for name in _RULES
    }
    return Budget(**merged, refuse_throttled=flags.refuse_throttled or default.refuse_throttled)


def check(budget: Budget, measured: Measured) -> GateReport:
    """One line per limit of the budget; a failed limit is a line, not an exception.

    Raises:
        InputError: the budget limits nothing, so that a pass would mean nothing.
    """
    if budget.empty:
        raise InputError(
            "the gate has no limit to check",
            fix="give one, for example --max-map-drop 0.5, or a target with a budget",
        )
    lines = [_line(name, bound, measured) for name in _RULES if (bound := getattr(budget, name)) is not None]
    if budget.refuse_throttled:
        lines.append(_throttle_line(measured))
    return GateReport(tuple(lines))


def _line(name: str, bound: float, measured: Measured) -> GateLine:
    rule = _RULES[name]
    value: float | None = getattr(measured, rule.measured)
    if value is None or not math.isfinite(value):
        # NaN compares false with everything, so it would pass a "greater than" test for failure.
        remark = f"not measured: {rule.how}" if value is None else f"measured {value}, not a number to judge"
        return GateLine(name, bound, None, rule.unit, Verdict.NOT_MEASURED, remark)
    kept = value >= bound if name.startswith("min_") else value <= bound
    interval = getattr(measured, rule.interval) if rule.interval is not None else None
    verdict = Verdict.PASS if kept else Verdict.FAIL
    return GateLine(name, bound, value, rule.unit, verdict, _resolvable(interval, bound, rule))


def _resolvable(interval: tuple[float, float] | None, bound: float, rule: _Rule) -> str:
    """A remark when the interval holds the bound: another sample of images or runs could say otherwise."""
    if interval is None or interval[0] == interval[1] or not interval[0] <= bound <= interval[1]:
        return ""
    more = "more images" if rule.unit == "points" else "more runs"
    return f"not resolvable: 95 % interval {interval[0]:.2f}..{interval[1]:.2f} holds the limit ({more})"


def _throttle_line(measured: Measured) -> GateLine:
    if measured.throttled is None:
        remark = "not measured: no latency run, or no sensor on this machine shows throttling"
        return GateLine("refuse_throttled", 0.0, None, "", Verdict.NOT_MEASURED, remark)
    verdict = Verdict.FAIL if measured.throttled else Verdict.PASS
    remark = "the machine throttled: cool it and measure again" if measured.throttled else ""
    return GateLine("refuse_throttled", 0.0, float(measured.throttled), "", verdict, remark)
