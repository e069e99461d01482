"""Inferences a second with several in flight, as a server or a bank of cameras asks for them.

Latency is the time of one inference that has the machine to itself; a runtime compiled for throughput gives
each inference fewer threads and runs several at once. Both figures are true, of different uses.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.runtimes.optional import ConcurrentSession

__all__ = ["Throughput", "measure_throughput"]


@dataclass(frozen=True)
class Throughput:
    """How many inferences were done in which time."""

    inferences: int
    elapsed_ns: int
    """From the first one's start until the last one was done."""
    in_flight: int
    """At most so many at once."""

    @property
    def per_second(self) -> float:
        """Inferences a second."""
        return self.inferences * 1e9 / self.elapsed_ns

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        return {
            "inferences_per_s": self.per_second,
            "inference_count": self.inferences,
            "elapsed_ms": self.elapsed_ns / 1e6,
            "in_flight": self.in_flight,
        }


def measure_throughput(
    session: ConcurrentSession,
    inputs: Sequence[Any],
    *,
    duration_s: float,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Throughput:
    """Keep the session busy for about ``duration_s``; every request has run once before that.

    Args:
        session: one that runs several inferences at once.
        inputs: prepared inputs, taken in turn.
        duration_s: no inference starts after it; at least one round of all requests is done.
        clock_ns: another one in tests.

    Raises:
        ValueError: no inputs.
        ModelError: as the session's ``infer``.
    """
    if not inputs:
        raise ValueError("no inputs to infer from")
    in_flight = session.in_flight
    session.infer_all(itertools.islice(itertools.cycle(inputs), in_flight))
    started = 0
    start_ns = clock_ns()

    def feed() -> Iterator[Any]:
        nonlocal started
        for tensor in itertools.cycle(inputs):
            if started >= in_flight and clock_ns() - start_ns >= duration_s * 1e9:
                return
            started += 1
            yield tensor

    session.infer_all(feed())
    return Throughput(started, max(1, clock_ns() - start_ns), in_flight)
