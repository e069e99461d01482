"""Whether a long run grew slower: the first minute against the last, contestant by contestant.

Rounds carry no time stamps, but every run's length is known and contestants run back to back, so a round's
place in time is the sum of what ran before it, stretched to the run's whole duration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.benchmark.latency import LatencyReport

__all__ = ["Drift", "drift_of"]

WINDOW_S = 60.0
DRIFTED = 0.05
"""Medians of two minutes on a steady machine agree far closer."""


@dataclass(frozen=True)
class Drift:
    """One contestant's medians at the run's two ends."""

    name: str
    window_s: float
    first_p50_ms: float
    last_p50_ms: float

    @property
    def change(self) -> float:
        """Last / first - 1: over 0 is slower."""
        return self.last_p50_ms / self.first_p50_ms - 1

    @property
    def drifted(self) -> bool:
        """Whether the change is worth a word."""
        return abs(self.change) > DRIFTED

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "name": self.name,
            "window_s": self.window_s,
            "first_p50_ms": self.first_p50_ms,
            "last_p50_ms": self.last_p50_ms,
            "change": self.change,
            "drifted": self.drifted,
        }


def drift_of(report: LatencyReport, *, window_s: float = WINDOW_S) -> tuple[Drift, ...]:
    """Drift of each contestant; the windows shrink to a third of a run that is shorter than three of them."""
    window_s = min(window_s, report.duration_s / 3)
    spent = np.sum([entry.wall_ns for entry in report.contestants], axis=0, dtype=np.float64)
    ends = np.cumsum(spent)
    at_s = ends / ends[-1] * report.duration_s
    first, last = at_s <= max(window_s, at_s[0]), at_s > min(report.duration_s - window_s, at_s[-2:][0])
    out = []
    for entry in report.contestants:
        wall_ms = np.asarray(entry.wall_ns, dtype=np.float64) / 1e6
        out.append(
            Drift(entry.name, window_s, float(np.median(wall_ms[first])), float(np.median(wall_ms[last])))
        )
    return tuple(out)
