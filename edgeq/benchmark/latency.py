"""What a latency measurement says: raw samples, quantiles with intervals, speed-ups; never a bare mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from edgeq.benchmark.percentiles import Quantile, quantile
from edgeq.benchmark.ratio import Ratio, paired_ratio
from edgeq.benchmark.steady import WarmUpRecord

__all__ = ["PERCENTS", "ContestantLatency", "LatencyReport", "Speedup", "quantiles_to_json"]

PERCENTS = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True)
class ContestantLatency:
    """One contestant's samples, in the order in which they were taken, outliers kept."""

    name: str
    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    """As many, or none: not measured."""
    warm_up: WarmUpRecord
    details: Mapping[str, str] = field(default_factory=dict)
    """What ran: `edgeq.runtimes.base.Session.details`."""
    peak_memory_mb: float | None = None
    """Of a process of its own (`edgeq.benchmark.memory`); None: not measured."""
    size_mb: float | None = None
    """Of the artifact, 10^6 bytes; None: not known."""

    @cached_property
    def quantiles(self) -> tuple[Quantile, ...]:
        """p50, p90, p95 and p99; those without samples enough have no value."""
        return tuple(quantile(self.wall_ns, percent) for percent in PERCENTS)

    def quantile(self, percent: float) -> Quantile:
        """One percentile."""
        return quantile(self.wall_ns, percent)

    @property
    def cpu_ms(self) -> float | None:
        """Median CPU time of a run, all threads; None: not measured."""
        return float(np.median(self.cpu_ns)) / 1e6 if self.cpu_ns else None

    @property
    def spread(self) -> float:
        """(p90 - p10) / p50 of the samples: how noisy they are; 0 for one sample."""
        p10, p50, p90 = np.percentile(np.asarray(self.wall_ns, dtype=np.float64), [10, 50, 90])
        return float((p90 - p10) / p50) if p50 > 0 else 0.0

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "name": self.name,
            **quantiles_to_json(self.quantiles),
            "cpu_ms": self.cpu_ms,
            "mean_ms": float(np.mean(self.wall_ns)) / 1e6,
            "min_ms": min(self.wall_ns) / 1e6,
            "max_ms": max(self.wall_ns) / 1e6,
            "spread": self.spread,
            "runs": len(self.wall_ns),
            "warm_up": self.warm_up.to_json(),
            "details": dict(self.details),
            "peak_memory_mb": self.peak_memory_mb,
            "size_mb": self.size_mb,
            "wall_ns": list(self.wall_ns),
            "cpu_ns": list(self.cpu_ns),
        }


def quantiles_to_json(quantiles: Sequence[Quantile]) -> dict[str, object]:
    """``p50_ms``, ``p50_interval_ms``, ``p50_early_stopping_ms``, ... and what is missing for the others."""
    out: dict[str, object] = {}
    for entry in quantiles:
        out[f"{entry.name}_ms"] = entry.value_ms
        out[f"{entry.name}_interval_ms"] = None if entry.interval_ms is None else list(entry.interval_ms)
        out[f"{entry.name}_early_stopping_ms"] = entry.early_stopping_ms
    out["samples_needed"] = {entry.name: entry.needed for entry in quantiles}
    return out


@dataclass(frozen=True)
class Speedup:
    """How many times faster than the baseline; over 1 is faster."""

    name: str
    baseline: str
    wall: Ratio
    cpu: Ratio | None
    """None: not measured."""

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "name": self.name,
            "baseline": self.baseline,
            "wall": self.wall.to_json(),
            "cpu": None if self.cpu is None else self.cpu.to_json(),
        }


@dataclass(frozen=True)
class LatencyReport:
    """A whole interleaved measurement."""

    contestants: tuple[ContestantLatency, ...]
    speedups: tuple[Speedup, ...]
    duration_s: float
    order: str
    seed: int
    block: int = 1
    """Successive samples of a contestant that one process took; 1: contestants changed after each run."""

    @classmethod
    def of(
        cls,
        contestants: Sequence[ContestantLatency],
        *,
        baseline: str | None,
        duration_s: float,
        order: str,
        seed: int,
        block: int = 1,
    ) -> LatencyReport:
        """The report of samples that are as many for each contestant, one per round.

        Args:
            contestants: at least one; names differ.
            baseline: whom the ratios refer to; None: the first.
            duration_s: what the rounds took.
            order: order within a round.
            seed: of the order and of the bootstrap.
            block: successive samples that one process took.
        """
        base = contestants[0] if baseline is None else next(e for e in contestants if e.name == baseline)
        speedups = tuple(
            Speedup(
                entry.name,
                base.name,
                paired_ratio(base.wall_ns, entry.wall_ns, seed=seed, block=block),
                paired_ratio(base.cpu_ns, entry.cpu_ns, seed=seed, block=block)
                if base.cpu_ns and entry.cpu_ns
                else None,
            )
            for entry in contestants
            if entry is not base
        )
        return cls(tuple(contestants), speedups, duration_s, order, seed, block)

    def contestant(self, name: str) -> ContestantLatency:
        """The contestant of that name.

        Raises:
            KeyError: there is none.
        """
        for entry in self.contestants:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def speedup(self, name: str) -> Speedup | None:
        """The ratio of that contestant to the baseline; None for the baseline itself."""
        return next((entry for entry in self.speedups if entry.name == name), None)

    def with_facts(
        self,
        name: str,
        *,
        details: Mapping[str, str] | None = None,
        peak_memory_mb: float | None = None,
        size_mb: float | None = None,
    ) -> LatencyReport:
        """The report with what the loop cannot know of one contestant; None leaves a field as it is.

        Raises:
            KeyError: there is no contestant of that name.
        """
        known = self.contestant(name)
        told = replace(
            known,
            details=known.details if details is None else details,
            peak_memory_mb=known.peak_memory_mb if peak_memory_mb is None else peak_memory_mb,
            size_mb=known.size_mb if size_mb is None else size_mb,
        )
        contestants = tuple(told if entry is known else entry for entry in self.contestants)
        return replace(self, contestants=contestants)

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "contestants": [entry.to_json() for entry in self.contestants],
            "speedups": [entry.to_json() for entry in self.speedups],
            "duration_s": self.duration_s,
            "order": self.order,
            "seed": self.seed,
            "block_runs": self.block,
        }
