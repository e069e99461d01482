"""Frames at a fixed rate, as a camera delivers them: how many are late, and how late.

Frame k is due at ``start + k / rate`` and has to be done before the next one is due. A frame that finds the
one before still in work waits for it, as in a program that drops none; so lateness adds up where the device
is too slow, and that is what shows. The clock is read once more behind the wait, so an early wake-up of the
sleep does not count as the device's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.benchmark.latency import PERCENTS, quantiles_to_json
from edgeq.benchmark.percentiles import quantile

__all__ = ["RateReport", "measure_rate"]


@dataclass(frozen=True)
class RateReport:
    """Frames at a fixed rate, in order."""

    rate_hz: float
    response_ns: tuple[int, ...]
    """From when a frame was due to when it was done."""

    @property
    def late_ns(self) -> tuple[int, ...]:
        """How much later than the next frame's due time each late frame was done."""
        period_ns = round(1e9 / self.rate_hz)
        return tuple(value - period_ns for value in self.response_ns if value > period_ns)

    def to_json(self) -> dict[str, object]:
        """Plain data with the report's names."""
        late = self.late_ns
        return {
            "rate_hz": self.rate_hz,
            "frame_count": len(self.response_ns),
            "late_count": len(late),
            "late_max_ms": max(late) / 1e6 if late else 0.0,
            "response": quantiles_to_json([quantile(self.response_ns, p) for p in PERCENTS]),
            "response_ns": list(self.response_ns),
        }


def measure_rate(
    run: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    rate_hz: float,
    duration_s: float,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> RateReport:
    """Run ``run`` on the items in turn, ``rate_hz`` times a second.

    Args:
        run: the whole path of a frame; warm already.
        items: frames, taken in turn.
        rate_hz: frames a second.
        duration_s: for about this long; at least one frame.
        clock_ns: another one in tests.
        sleep: another one in tests.

    Raises:
        ValueError: no items, or a rate that is not above 0.
    """
    if not items or rate_hz <= 0:
        raise ValueError(f"{len(items)} items at {rate_hz} frames a second")
    response_ns: list[int] = []
    start_ns = clock_ns()
    for number in range(max(1, round(duration_s * rate_hz))):
        due_ns = start_ns + round(number * 1e9 / rate_hz)
        while (left_ns := due_ns - clock_ns()) > 0:
            sleep(left_ns / 1e9)
        run(items[number % len(items)])
        response_ns.append(clock_ns() - due_ns)
    return RateReport(rate_hz, tuple(response_ns))
