"""What the gate judges: from reports, or measured for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.gate import Budget, Measured
from edgeq.report.numbers import list_of_maps
from edgeq.types import PostProcess

__all__ = ["GateSettings", "measured_from", "needs_accuracy", "needs_latency"]

_PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class GateSettings:
    """How to measure what a limit asks for and no report tells."""

    data: Path | None
    """Labelled images; None: accuracy is not measured."""
    split: str
    images: int | None
    threads: int
    duration_s: float
    post: PostProcess


def needs_accuracy(budget: Budget) -> bool:
    """Whether a limit asks for accuracy."""
    return any(limit is not None for limit in (budget.max_map_drop, budget.max_top1_drop, budget.min_map))


def needs_latency(budget: Budget) -> bool:
    """Whether a limit asks for a latency run."""
    limits = [getattr(budget, f"max_{name}_ms") for name in _PERCENTILES]
    limits += [budget.max_memory_mb, budget.min_speedup]
    return budget.refuse_throttled or any(limit is not None for limit in limits)


def measured_from(
    accuracy: Mapping[str, Any] | None, latency: Mapping[str, Any] | None, *, size_mb: float
) -> Measured:
    """What reports say; what they lack stays None, and the gate fails it as not measured.

    Args:
        accuracy: `edgeq.cli.accuracy.Accuracy.to_json`.
        latency: `edgeq.cli.latency.Latency.to_json`.
        size_mb: of the artifact.
    """
    return Measured(size_mb=size_mb, **_accuracy(accuracy or {}), **_latency(latency or {}))


def _accuracy(report: Mapping[str, Any]) -> dict[str, Any]:
    models = list_of_maps(report.get("models"))
    judged = next((model for model in models if model.get("name") != "float"), {})
    values: dict[str, Any] = {"map50_95": _number(judged.get("map50_95"))}
    drop = report.get("drop")
    if not isinstance(drop, Mapping):
        return values
    task = "map" if drop.get("metric") == "map50_95" else "top1"
    values[f"{task}_drop_points"] = _number(drop.get("drop_points"))
    values[f"{task}_drop_interval_points"] = _pair(drop.get("drop_interval_points"))
    return values


def _latency(report: Mapping[str, Any]) -> dict[str, Any]:
    name = report.get("judged")
    judged = next(
        (entry for entry in list_of_maps(report.get("contestants")) if entry.get("name") == name), {}
    )
    values: dict[str, Any] = {"memory_mb": _number(judged.get("peak_memory_mb"))}
    for percentile in _PERCENTILES:
        values[f"{percentile}_ms"] = _number(judged.get(f"{percentile}_ms"))
        values[f"{percentile}_interval_ms"] = _pair(judged.get(f"{percentile}_interval_ms"))
    speedups = (
        entry
        for entry in list_of_maps(report.get("speedups"))
        if entry.get("name") == name and entry.get("baseline") == "float"
    )
    wall = next(speedups, {}).get("wall")
    if isinstance(wall, Mapping):
        values["speedup"] = _number(wall.get("value"))
        values["speedup_interval"] = _pair(wall.get("interval"))
    health = report.get("health")
    throttled = health.get("throttled") if isinstance(health, Mapping) else None
    values["throttled"] = throttled if isinstance(throttled, bool) else None
    return values


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _pair(value: object) -> tuple[float, float] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    low, high = map(_number, value)
    return None if low is None or high is None else (low, high)
