"""Warm-up until the latency is steady, with a cap, and a record of what was thrown away.

The rule: samples are grouped into successive windows, each at least ``window_runs`` runs and
``window_s`` seconds long. The state is steady when the medians of the last ``windows`` windows lie
within ``tolerance`` of each other (greatest / smallest - 1). Medians, because one interrupt must not
restart the warm-up; a minimum in seconds, because clocks and caches settle in time, not in runs. A
machine that never settles is measured all the same after ``max_s`` or ``max_runs``, and the record says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

__all__ = ["SteadyDetector", "WarmUp", "WarmUpRecord"]


@dataclass(frozen=True)
class WarmUp:
    """When a contestant counts as warm."""

    window_runs: int = 5
    window_s: float = 0.2
    windows: int = 3
    tolerance: float = 0.03
    max_s: float = 10.0
    """Cap on the whole warm-up, all contestants together."""
    max_runs: int = 100_000
    """Cap on the runs of one contestant."""


@dataclass(frozen=True)
class WarmUpRecord:
    """What the warm-up of one contestant was."""

    discarded: int
    """Runs before the measurement; none of them is in the samples."""
    steady: bool
    """Whether the rule was met; False: a cap ended the warm-up."""
    last_medians_ms: tuple[float, ...]
    """Medians of the last windows, oldest first."""

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "discarded": self.discarded,
            "steady": self.steady,
            "last_medians_ms": list(self.last_medians_ms),
        }


class SteadyDetector:
    """Takes latencies one by one and says whether they have become steady."""

    def __init__(self, rule: WarmUp) -> None:
        self._rule = rule
        self._window_ns: list[int] = []
        self._window_total_ns = 0
        self._medians_ns: list[float] = []
        self._runs = 0

    def add(self, latency_ns: int) -> None:
        """Take the next latency."""
        self._runs += 1
        self._window_ns.append(latency_ns)
        self._window_total_ns += latency_ns
        long_enough = self._window_total_ns >= self._rule.window_s * 1e9
        if len(self._window_ns) >= self._rule.window_runs and long_enough:
            self._medians_ns.append(median(self._window_ns))
            self._window_ns = []
            self._window_total_ns = 0

    @property
    def runs(self) -> int:
        """How many latencies were taken."""
        return self._runs

    @property
    def steady(self) -> bool:
        """Whether the last windows agree."""
        return self.spread <= self._rule.tolerance

    @property
    def spread(self) -> float:
        """Greatest / smallest - 1 of the last windows' medians; infinite before there are enough windows."""
        last = self._medians_ns[-self._rule.windows :]
        if len(last) < self._rule.windows:
            return math.inf
        return max(last) / min(last) - 1 if min(last) > 0 else 0.0

    def record(self) -> WarmUpRecord:
        """What happened, for the report."""
        last = tuple(value / 1e6 for value in self._medians_ns[-self._rule.windows :])
        return WarmUpRecord(discarded=self._runs, steady=self.steady, last_medians_ms=last)
