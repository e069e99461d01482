"""The latency loop: contestants take turns, every sample is kept, nothing is averaged away.

A round is one run of each contestant on the same input. The order within a round changes (seeded random,
or forwards and backwards in turn), so that no contestant always runs on the caches and the clock that
another left behind, and so that a drift of the machine meets all alike.

Wall time is ``perf_counter_ns``, CPU time ``process_time_ns`` (all threads of this process: also the
runtime's pool). The CPU clock is read outside the wall clock's readings because it is the slower call.
Python's cyclic garbage collector is off while measuring, as in ``timeit``.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from edgeq.benchmark.latency import ContestantLatency, LatencyReport
from edgeq.benchmark.steady import SteadyDetector, WarmUp

__all__ = ["Contestant", "LoopProgress", "Order", "Progress", "measure"]

_PROGRESS_EVERY_NS = 200_000_000


@dataclass(frozen=True)
class Contestant:
    """Something to be timed: one call of ``infer`` on one prepared input."""

    name: str
    infer: Callable[[Any], Any]
    inputs: Sequence[Any]
    """Prepared inputs, taken in turn; all contestants should have as many."""


class Order(str, Enum):
    """In which order the contestants of a round run."""

    RANDOM = "random"
    """A seeded random order for each round."""
    ABBA = "abba"
    """Forwards, then backwards: equal places over every two rounds."""


@dataclass(frozen=True)
class LoopProgress:
    """How far a measurement is; reported between rounds, never inside a timed run."""

    phase: str
    """``warm-up`` or ``measure``."""
    rounds: int
    elapsed_s: float
    duration_s: float
    """What was asked for; in the warm-up the cap."""


Progress = Callable[[LoopProgress], None]


def measure(
    contestants: Sequence[Contestant],
    *,
    duration_s: float = 10.0,
    min_runs: int = 64,
    max_runs: int | None = None,
    warm_up: WarmUp | None = None,
    order: Order = Order.RANDOM,
    seed: int = 0,
    baseline: str | None = None,
    progress: Progress | None = None,
) -> LatencyReport:
    """Latency of each contestant, measured in turns, and their ratios.

    Args:
        contestants: what to time; names differ.
        duration_s: measure for about this long, warm-up not counted, all contestants together.
        min_runs: runs of each contestant at least, however long that takes (64: enough to quote p90).
        max_runs: stop at this many even before ``duration_s``; None: no such limit.
        warm_up: when a contestant counts as warm; None: the default rule.
        order: order within a round.
        seed: of the order and of the bootstrap.
        baseline: whom the ratios refer to; None: the first contestant.
        progress: called about five times a second, between rounds.

    Raises:
        ValueError: no contestants, equal names, a contestant without inputs, an unknown baseline,
            or limits that contradict.
    """
    _check(contestants, baseline, min_runs, max_runs)
    rng = np.random.default_rng(seed)
    with _quiet_collector():
        detectors = _warm_up(
            contestants, warm_up or WarmUp(), _orders(len(contestants), order, rng), progress
        )
        started_ns = time.perf_counter_ns()
        wall, cpu = _rounds(
            contestants,
            _orders(len(contestants), order, rng),
            duration_ns=int(duration_s * 1e9),
            min_runs=min_runs,
            max_runs=max_runs,
            progress=progress,
        )
        elapsed_ns = time.perf_counter_ns() - started_ns
    results = [
        ContestantLatency(contestant.name, tuple(wall[i]), tuple(cpu[i]), detectors[i].record())
        for i, contestant in enumerate(contestants)
    ]
    return LatencyReport.of(
        results, baseline=baseline, duration_s=elapsed_ns / 1e9, order=order.value, seed=seed
    )


def _check(
    contestants: Sequence[Contestant], baseline: str | None, min_runs: int, max_runs: int | None
) -> None:
    """Raise ValueError as `measure` promises."""
    names = [contestant.name for contestant in contestants]
    if not names:
        raise ValueError("nothing to measure: no contestants")
    if len(set(names)) != len(names):
        raise ValueError(f"contestants need names that differ: {names}")
    for contestant in contestants:
        if len(contestant.inputs) == 0:
            raise ValueError(f"contestant {contestant.name!r} has no inputs")
    if min_runs < 1 or (max_runs is not None and max_runs < min_runs):
        raise ValueError(f"min_runs {min_runs} and max_runs {max_runs} contradict")
    if baseline is not None and baseline not in names:
        raise ValueError(f"baseline {baseline!r} is none of {names}")


@contextmanager
def _quiet_collector() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _orders(count: int, order: Order, rng: np.random.Generator) -> Iterator[list[int]]:
    """Endless orders of 0..count-1, one per round."""
    forwards = list(range(count))
    while True:
        if order is Order.RANDOM:
            yield [int(i) for i in rng.permutation(count)]
        else:
            yield forwards
            yield forwards[::-1]


def _time_once(contestant: Contestant, number: int) -> tuple[int, int]:
    """Wall and CPU nanoseconds of one run on the round's input."""
    infer = contestant.infer
    tensor = contestant.inputs[number % len(contestant.inputs)]
    cpu_start = time.process_time_ns()
    start = time.perf_counter_ns()
    infer(tensor)
    stop = time.perf_counter_ns()
    cpu_stop = time.process_time_ns()
    return stop - start, cpu_stop - cpu_start


def _warm_up(
    contestants: Sequence[Contestant],
    rule: WarmUp,
    orders: Iterator[list[int]],
    progress: Progress | None,
) -> list[SteadyDetector]:
    """Run rounds, in turn as in the measurement, until every contestant is steady or a cap is met."""
    detectors = [SteadyDetector(rule) for _ in contestants]
    clock = _ProgressClock("warm-up", rule.max_s, progress)
    for number in range(rule.max_runs):
        if all(detector.steady for detector in detectors) or clock.elapsed_s >= rule.max_s:
            break
        for i in next(orders):
            detectors[i].add(_time_once(contestants[i], number)[0])
        clock.tick(number + 1)
    return detectors


def _rounds(
    contestants: Sequence[Contestant],
    orders: Iterator[list[int]],
    *,
    duration_ns: int,
    min_runs: int,
    max_runs: int | None,
    progress: Progress | None,
) -> tuple[list[list[int]], list[list[int]]]:
    """Wall and CPU samples, one list per contestant, one entry per round."""
    wall: list[list[int]] = [[] for _ in contestants]
    cpu: list[list[int]] = [[] for _ in contestants]
    clock = _ProgressClock("measure", duration_ns / 1e9, progress)
    number = 0
    while number < min_runs or clock.elapsed_s * 1e9 < duration_ns:
        if max_runs is not None and number >= max_runs:
            break
        for i in next(orders):
            wall_ns, cpu_ns = _time_once(contestants[i], number)
            wall[i].append(wall_ns)
            cpu[i].append(cpu_ns)
        number += 1
        clock.tick(number)
    return wall, cpu


class _ProgressClock:
    """Elapsed time of a phase, and progress at most every 0.2 s."""

    def __init__(self, phase: str, duration_s: float, progress: Progress | None) -> None:
        self._phase = phase
        self._duration_s = duration_s
        self._progress = progress
        self._start_ns = time.perf_counter_ns()
        self._last_ns = self._start_ns

    @property
    def elapsed_s(self) -> float:
        return (time.perf_counter_ns() - self._start_ns) / 1e9

    def tick(self, rounds: int) -> None:
        if self._progress is None:
            return
        now_ns = time.perf_counter_ns()
        if now_ns - self._last_ns >= _PROGRESS_EVERY_NS:
            self._last_ns = now_ns
            elapsed_s = (now_ns - self._start_ns) / 1e9
            self._progress(LoopProgress(self._phase, rounds, elapsed_s, self._duration_s))
