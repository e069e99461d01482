import pytest

from edgeq.benchmark.drift import drift_of
from edgeq.benchmark.latency import ContestantLatency, LatencyReport
from edgeq.benchmark.steady import WarmUpRecord


def report(**samples_ms) -> LatencyReport:
    warm = WarmUpRecord(0, True, ())
    entries = tuple(
        ContestantLatency(name, tuple(round(value * 1e6) for value in values), (1,) * len(values), warm)
        for name, values in samples_ms.items()
    )
    total_s = sum(sum(entry.wall_ns) for entry in entries) / 1e9
    return LatencyReport(entries, (), total_s, "random", 0)


def test_a_steady_run_does_not_drift():
    (drift,) = drift_of(report(a=[10.0] * 30_000))
    assert drift.window_s == 60.0
    assert drift.change == 0
    assert not drift.drifted


def test_a_board_that_throttles_shows_in_the_last_minute():
    hot = [10.0] * 12_000 + [14.0] * 12_000
    cool = [5.0] * 24_000
    first, second = drift_of(report(a=hot, b=cool))
    assert first.change == pytest.approx(0.4)
    assert first.drifted
    assert (first.first_p50_ms, first.last_p50_ms) == (10.0, 14.0)
    assert not second.drifted


def test_a_short_run_is_split_in_thirds():
    (drift,) = drift_of(report(a=[10.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0]))
    assert drift.window_s < 1
    assert drift.change == pytest.approx(1.0)


def test_one_or_two_runs_do_not_break_it():
    assert drift_of(report(a=[10.0]))[0].change == 0
    assert drift_of(report(a=[10.0, 20.0]))[0].change == pytest.approx(1.0)
