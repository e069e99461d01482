import pytest

from edgeq.benchmark.rate import measure_rate


class Clock:
    """Time that passes only where the test says so."""

    def __init__(self):
        self.now_ns = 0

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)


def run_with(costs_ms, rate_hz=100.0):
    clock = Clock()
    left = iter(costs_ms)

    def work(item):
        clock.now_ns += round(next(left) * 1e6)

    return measure_rate(
        work, ["frame"], rate_hz=rate_hz, duration_s=len(costs_ms) / rate_hz, clock_ns=lambda: clock.now_ns,
        sleep=clock.sleep,
    )  # fmt: skip


def test_frames_in_time_are_not_late():
    report = run_with([4.0, 9.9, 1.0])
    assert report.response_ns == (4_000_000, 9_900_000, 1_000_000)
    assert report.late_ns == ()
    assert report.to_json()["late_count"] == 0


def test_a_slow_frame_delays_those_behind_it():
    report = run_with([4.0, 25.0, 4.0, 4.0, 4.0])
    # Due at 10, done at 35; the next is due at 20 and waits; at 43 the third is done, at 47 the fourth.
    assert report.response_ns == (4_000_000, 25_000_000, 19_000_000, 13_000_000, 7_000_000)
    assert report.late_ns == (15_000_000, 9_000_000, 3_000_000)
    assert report.to_json()["late_max_ms"] == 15.0


def test_a_device_that_is_too_slow_falls_ever_further_behind():
    late = run_with([12.0] * 20).late_ns
    assert list(late) == sorted(late)
    assert late[-1] == 20 * 12_000_000 - 19 * 10_000_000 - 10_000_000


def test_senseless_wishes():
    with pytest.raises(ValueError):
        measure_rate(print, [], rate_hz=30, duration_s=1)
    with pytest.raises(ValueError):
        measure_rate(print, [1], rate_hz=0, duration_s=1)
