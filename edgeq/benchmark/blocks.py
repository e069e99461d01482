"""Latency of sessions that time themselves: blocks of inferences, contestants in turns.

A runtime that is a program of its own (`edgeq.runtimes.optional.SelfTimedSession`) can only be asked for the
times of many inferences in one process. So a round is one such block of each contestant, all of equal size,
and rounds run forwards and backwards in turn (A B B A ...): a drift of the machine meets all alike. Samples
of one process share its state, which the bootstrap of the ratios takes into account (`paired_ratio`).

How long a process warms up is measured first, by the rule of `edgeq.benchmark.steady`. CPU time is that of
another process, so there is none here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from edgeq.benchmark.latency import ContestantLatency, LatencyReport
from edgeq.benchmark.loop import LoopProgress, Order
from edgeq.benchmark.steady import SteadyDetector, WarmUp
from edgeq.runtimes.optional import SelfTimedSession

__all__ = ["SelfTimed", "measure_blocks"]

_ROUNDS = 6
"""At least, and even, so that each contestant has every place equally often."""
_ROUND_S = 20.0
"""Of inferences at most: a machine drifts within minutes."""
_TRIAL_S = 2.0


@dataclass(frozen=True)
class SelfTimed:
    """Something that times itself."""

    name: str
    session: SelfTimedSession
    inputs: Sequence[Any]
    """Prepared inputs, one for each block, in turn."""


@dataclass(frozen=True)
class _Trial:
    """A first process of one contestant, none of whose times counts."""

    detector: SteadyDetector
    warm_up_s: float
    """Until it was steady."""
    latency_s: float


def measure_blocks(
    contestants: Sequence[SelfTimed],
    *,
    duration_s: float = 10.0,
    min_runs: int = 64,
    warm_up: WarmUp | None = None,
    baseline: str | None = None,
    seed: int = 0,
    progress: Callable[[LoopProgress], None] | None = None,
) -> LatencyReport:
    """Latency of each contestant, and their ratios.

    Args:
        contestants: at least one; names differ.
        duration_s: of inferences that count, all contestants together; starting processes comes on top.
        min_runs: inferences of each at least.
        warm_up: when a contestant counts as warm; None: the default rule.
        baseline: whom the ratios refer to; None: the first contestant.
        seed: of the bootstrap.
        progress: called between blocks.

    Raises:
        ModelError: a model does not run.
    """
    rule = warm_up or WarmUp()
    trials = [_try(entry, rule, min(_TRIAL_S, rule.max_s / len(contestants))) for entry in contestants]
    warm_up_s = max(trial.warm_up_s for trial in trials)
    rounds = max(_ROUNDS, 2 * math.ceil(duration_s / _ROUND_S / 2))
    wanted = duration_s / rounds / sum(trial.latency_s for trial in trials)
    block = max(math.ceil(min_runs / rounds), round(wanted), 1)
    wall: list[list[int]] = [[] for _ in contestants]
    started_s = time.perf_counter()
    for number in range(rounds):
        places = range(len(contestants))
        for i in places if number % 2 == 0 else reversed(places):
            tensor = contestants[i].inputs[number % len(contestants[i].inputs)]
            times = contestants[i].session.time_runs(tensor, runs=block, duration_s=0.0, warm_up_s=warm_up_s)
            wall[i] += times[-block:]
        if progress is not None:
            done_s = duration_s * (number + 1) / rounds
            progress(LoopProgress("measure", (number + 1) * block, done_s, duration_s))
    results = [
        ContestantLatency(entry.name, tuple(wall[i]), (), trials[i].detector.record())
        for i, entry in enumerate(contestants)
    ]
    return LatencyReport.of(
        results,
        baseline=baseline,
        duration_s=time.perf_counter() - started_s,
        order=Order.ABBA.value,
        seed=seed,
        block=block,
    )


def _try(entry: SelfTimed, rule: WarmUp, duration_s: float) -> _Trial:
    """One process that is watched from its first inference on."""
    least = rule.window_runs * rule.windows
    times = entry.session.time_runs(entry.inputs[0], runs=least, duration_s=duration_s, warm_up_s=0.0)
    detector, spent_ns = SteadyDetector(rule), 0
    for latency_ns in times:
        if detector.steady:
            break
        detector.add(latency_ns)
        spent_ns += latency_ns
    return _Trial(detector, spent_ns / 1e9, median(times) / 1e9)
