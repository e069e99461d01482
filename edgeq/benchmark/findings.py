"""What a reader of the numbers must know: INT8 that does not pay, noise, throttling, no steady state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from edgeq.benchmark.latency import LatencyReport, Speedup
from edgeq.benchmark.telemetry import HealthRecord
from edgeq.runtimes.base import AuditReport, LayerAudit, LayerPrecision

__all__ = ["Finding", "FindingKind", "benchmark_findings"]

WORTH_IT = 1.02
"""Two sessions of one and the same model differ resolvably by about 1 %: where their memory lies."""
NOISY_SPREAD = 0.25
"""(p90 - p10) / p50."""
NOISY_CORES = 0.25
"""Cores busy with other work; a fifth of it where another virtual machine takes them."""


class FindingKind(str, Enum):
    """What was found."""

    NOT_FASTER = "not-faster"
    NOISY = "noisy-machine"
    THROTTLED = "throttled"
    NOT_STEADY = "not-steady"
    TOO_FEW_RUNS = "too-few-runs"
    EMULATED = "emulated"
    DRIFT = "drift"
    LATE = "late"


@dataclass(frozen=True)
class Finding:
    """One thing to know, with its numbers and what to do about it."""

    kind: FindingKind
    message: str
    fix: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[LayerAudit, ...] = ()
    """Layers that stayed float, where they are the cause."""

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        layers = [
            {"name": entry.name, "op": entry.op, "kernel": entry.kernel, "reason": entry.reason}
            for entry in self.layers
        ]
        return {
            "kind": self.kind.value,
            "message": self.message,
            "fix": self.fix,
            "numbers": dict(self.numbers),
            "layers": layers,
        }


def benchmark_findings(
    report: LatencyReport,
    *,
    int8: str | None = None,
    audit: AuditReport | None = None,
    health: HealthRecord | None = None,
) -> tuple[Finding, ...]:
    """All findings of a measurement, the gravest first.

    Args:
        report: whose baseline is the float model.
        int8: name of the INT8 contestant; None: speed is not judged.
        audit: of the INT8 artifact, to name the layers that stayed float.
        health: the machine around the measurement.
    """
    found: list[Finding] = []
    found += _throttled(health)
    found += _not_faster(report.speedup(int8), audit) if int8 is not None else []
    found += _noisy(report, health)
    found += _not_steady(report)
    found += _too_few(report)
    return tuple(found)


def _not_faster(speedup: Speedup | None, audit: AuditReport | None) -> list[Finding]:
    """INT8 whose speed-up is not resolvably over `WORTH_IT`, by wall time."""
    if speedup is None or speedup.wall.low > WORTH_IT:
        return []
    wall = speedup.wall
    verdict = "is slower than" if wall.high < 1 else "is not noticeably faster than"
    message = (
        f"{speedup.name} {verdict} {speedup.baseline}: {wall.value:.2f}x by wall time "
        f"(95 % interval {wall.low:.2f}..{wall.high:.2f}, {wall.rounds} rounds)"
    )
    message += f", {speedup.cpu.value:.2f}x by CPU time" if speedup.cpu is not None else ""
    layers = _float_layers(audit)
    numbers = {
        "speedup": wall.value,
        "speedup_low": wall.low,
        "speedup_high": wall.high,
        "float_layers": float(len(layers)),
    }
    numbers |= {"cpu_speedup": speedup.cpu.value} if speedup.cpu is not None else {}
    if audit is None:
        fix = "run 'edgeq audit' on the bundle to see which layers stayed in float"
    elif layers:
        message += (
            f"; {len(layers)} of {len(audit.compute_layers)} convolutions and matrix products stayed float"
        )
        fix = _float_fix(layers)
    else:
        message += f"; all {len(audit.compute_layers)} convolutions and matrix products run in INT8"
        fix = (
            "this CPU gains nothing from INT8 on this model: check its instructions with 'edgeq doctor', "
            "try another runtime, or ship the float model"
        )
    return [Finding(FindingKind.NOT_FASTER, message, fix, numbers, layers)]


def _float_layers(audit: AuditReport | None) -> tuple[LayerAudit, ...]:
    if audit is None:
        return ()
    return tuple(layer for layer in audit.compute_layers if layer.precision is not LayerPrecision.INT8)


def _float_fix(layers: tuple[LayerAudit, ...]) -> str:
    """Advice by the reasons that the audit gives, the most frequent first."""
    counts: dict[str, int] = {}
    for layer in layers:
        reason = layer.reason or "no reason given"
        counts[reason] = counts.get(reason, 0) + 1
    reasons = sorted(counts, key=lambda reason: (-counts[reason], reason))[:3]
    listed = "; ".join(f"{counts[reason]} x {reason}" for reason in reasons)
    return (
        f"they stayed float because: {listed}. Loosen the drop budget if the tuner kept them, "
        "or see each one with 'edgeq explain'"
    )


def _throttled(health: HealthRecord | None) -> list[Finding]:
    if health is None or not health.throttling:
        return []
    return [
        Finding(
            FindingKind.THROTTLED,
            "the machine throttled during the run: " + "; ".join(health.throttling),
            "cool it, use a stronger power supply, or fix the clock below its limit; then measure again",
            {"evidence": float(len(health.throttling))},
        )
    ]


def _noisy(report: LatencyReport, health: HealthRecord | None) -> list[Finding]:
    """Other load, stolen time or a wide spread."""
    reasons: list[str] = []
    numbers: dict[str, float] = {}
    if health is not None and (health.others_cores or 0) > NOISY_CORES:
        numbers["others_cores"] = health.others_cores or 0.0
        reasons.append(f"other processes kept {numbers['others_cores']:.1f} cores busy")
    if health is not None and (health.steal_cores or 0) > NOISY_CORES / 5:
        numbers["steal_cores"] = health.steal_cores or 0.0
        reasons.append(f"other virtual machines took {numbers['steal_cores']:.2f} cores")
    widest = max(report.contestants, key=lambda entry: entry.spread)
    if widest.spread > NOISY_SPREAD:
        numbers["spread"] = widest.spread
        reasons.append(f"p90 - p10 of {widest.name} is {widest.spread:.0%} of its median")
    if not reasons:
        return []
    return [
        Finding(
            FindingKind.NOISY,
            "the machine was noisy: " + "; ".join(reasons),
            "end other programs and measure longer (--duration); trust the ratios before the milliseconds",
            numbers,
        )
    ]


def _not_steady(report: LatencyReport) -> list[Finding]:
    unsteady = [entry for entry in report.contestants if not entry.warm_up.steady]
    if not unsteady:
        return []
    names = ", ".join(entry.name for entry in unsteady)
    discarded = max(entry.warm_up.discarded for entry in unsteady)
    return [
        Finding(
            FindingKind.NOT_STEADY,
            f"no steady state within the warm-up ({discarded} runs discarded): {names}",
            "measure longer (--duration), on a machine that does nothing else",
            {"discarded": float(discarded)},
        )
    ]


def _too_few(report: LatencyReport) -> list[Finding]:
    """Percentiles that could not be quoted."""
    fewest = min(report.contestants, key=lambda entry: len(entry.wall_ns))
    missing = [entry for entry in fewest.quantiles if entry.value_ms is None]
    if not missing:
        return []
    names = ", ".join(f"{entry.name} needs {entry.needed}" for entry in missing)
    return [
        Finding(
            FindingKind.TOO_FEW_RUNS,
            f"{len(fewest.wall_ns)} runs are too few to quote: {names}",
            "measure longer (--duration) or set --min-runs",
            {"runs": float(len(fewest.wall_ns))},
        )
    ]
