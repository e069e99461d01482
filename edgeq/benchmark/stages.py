"""Where the time of a whole frame goes: decode, pre-process, infer, post-process, apart and together.

The stages of one item run one after the other, as in the user's program, and the clock is read between
them: so the parts add up to the whole exactly, which separate loops for each stage would not give.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.benchmark.latency import PERCENTS, quantiles_to_json
from edgeq.benchmark.percentiles import Quantile, quantile
from edgeq.benchmark.steady import SteadyDetector, WarmUp, WarmUpRecord

__all__ = ["Stage", "StageLatency", "StageReport", "measure_stages"]


@dataclass(frozen=True)
class Stage:
    """One step: takes what the step before returned (the first: an item)."""

    name: str
    run: Callable[[Any], Any]


@dataclass(frozen=True)
class StageLatency:
    """Samples of one stage, one per frame."""

    name: str
    wall_ns: tuple[int, ...]

    @property
    def quantiles(self) -> tuple[Quantile, ...]:
        """p50, p90, p95 and p99; those without samples enough have no value."""
        return tuple(quantile(self.wall_ns, percent) for percent in PERCENTS)

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {"name": self.name, **quantiles_to_json(self.quantiles), "wall_ns": list(self.wall_ns)}


@dataclass(frozen=True)
class StageReport:
    """A frame's way, apart and together."""

    stages: tuple[StageLatency, ...]
    total: StageLatency
    """All stages of a frame; each sample is the sum of the stages' samples."""
    warm_up: WarmUpRecord

    def shares(self) -> dict[str, float]:
        """Each stage's part of the whole time, 0..1, by sums over all frames."""
        whole = max(1, sum(self.total.wall_ns))
        return {stage.name: sum(stage.wall_ns) / whole for stage in self.stages}

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "stages": [stage.to_json() for stage in self.stages],
            "total": self.total.to_json(),
            "shares": self.shares(),
            "warm_up": self.warm_up.to_json(),
        }


def measure_stages(
    items: Sequence[Any],
    stages: Sequence[Stage],
    *,
    duration_s: float = 5.0,
    min_runs: int = 64,
    warm_up: WarmUp | None = None,
) -> StageReport:
    """Time of each stage on real items, frame by frame.

    Args:
        items: what the first stage takes (paths to decode, or decoded images), taken in turn.
        stages: in order; names differ.
        duration_s: measure for about this long.
        min_runs: frames at least (64: enough to quote p90).
        warm_up: when the whole frame's time counts as steady; None: the default rule.

    Raises:
        ValueError: no items, no stages, or stages with equal names.
    """
    names = [stage.name for stage in stages]
    if not items or not names or len(set(names)) != len(names):
        raise ValueError(f"stages need items and names that differ: {len(items)} items, stages {names}")
    rule = warm_up or WarmUp()
    detector = SteadyDetector(rule)
    start_ns = time.perf_counter_ns()
    while not detector.steady and detector.runs < rule.max_runs and _seconds_since(start_ns) < rule.max_s:
        marks = _run_frame(items[detector.runs % len(items)], stages)
        detector.add(marks[-1] - marks[0])

    frames: list[list[int]] = []
    start_ns = time.perf_counter_ns()
    while len(frames) < min_runs or _seconds_since(start_ns) < duration_s:
        frames.append(_run_frame(items[len(frames) % len(items)], stages))
    spent = np.diff(np.asarray(frames, dtype=np.int64), axis=1)
    apart = tuple(StageLatency(name, tuple(spent[:, i].tolist())) for i, name in enumerate(names))
    return StageReport(apart, StageLatency("total", tuple(spent.sum(axis=1).tolist())), detector.record())


def _run_frame(item: Any, stages: Sequence[Stage]) -> list[int]:
    """Clock readings before the first stage and after each one."""
    value = item
    marks = [time.perf_counter_ns()]
    for stage in stages:
        value = stage.run(value)
        marks.append(time.perf_counter_ns())
    return marks


def _seconds_since(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e9
