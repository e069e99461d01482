import gc
import json
import time
from itertools import pairwise

import numpy as np
import pytest

from edgeq.benchmark.loop import Contestant, Order, measure
from edgeq.benchmark.steady import WarmUp

QUICK = WarmUp(window_runs=2, window_s=0.0, windows=2, tolerance=100.0)


def recorder(name, log):
    return Contestant(name, lambda tensor: log.append((name, tensor)), [0, 1, 2])


def test_contestants_take_turns_on_the_same_input():
    log = []
    report = measure([recorder("a", log), recorder("b", log)], duration_s=0, min_runs=40, warm_up=QUICK)
    measured = log[-80:]
    for i in range(0, 80, 2):
        first, second = measured[i], measured[i + 1]
        assert {first[0], second[0]} == {"a", "b"}
        assert first[1] == second[1] == (i // 2) % 3
    assert [len(entry.wall_ns) for entry in report.contestants] == [40, 40]
    starts = {measured[i][0] for i in range(0, 80, 2)}
    assert starts == {"a", "b"}


def test_abba_gives_equal_places():
    log = []
    measure(
        [recorder("a", log), recorder("b", log)], duration_s=0, min_runs=10, warm_up=QUICK, order=Order.ABBA
    )
    assert "".join(name for name, _ in log[-20:]) == "abba" * 5


def test_same_seed_same_order():
    runs = []
    for _ in range(2):
        log = []
        measure([recorder(name, log) for name in "abc"], duration_s=0, min_runs=30, warm_up=QUICK, seed=9)
        runs.append([name for name, _ in log][-90:])
    assert runs[0] == runs[1]


def test_raw_samples_warm_up_and_quantiles_are_in_the_report():
    log = []
    report = measure([recorder("a", log)], duration_s=0, min_runs=64, warm_up=QUICK)
    entry = report.contestant("a")
    assert entry.warm_up.discarded == len(log) - 64
    assert entry.quantile(90).value_ms is not None
    assert entry.quantile(99).value_ms is None
    data = json.loads(json.dumps(report.to_json()))["contestants"][0]
    assert data["p99_ms"] is None
    assert data["samples_needed"]["p99"] == 662
    assert len(data["wall_ns"]) == 64


def test_facts_are_added_to_one_contestant():
    report = measure([recorder("a", []), recorder("b", [])], duration_s=0, min_runs=1, warm_up=QUICK)
    told = report.with_facts("b", details={"threads": "1"}, size_mb=1.5).with_facts("b", peak_memory_mb=60)
    assert told.contestant("a") == report.contestant("a")
    entry = told.to_json()["contestants"][1]
    assert (entry["details"], entry["size_mb"], entry["peak_memory_mb"]) == ({"threads": "1"}, 1.5, 60)
    with pytest.raises(KeyError):
        report.with_facts("c", size_mb=1)


def test_limits():
    log = []
    report = measure([recorder("a", log)], duration_s=60, min_runs=1, max_runs=7, warm_up=QUICK)
    assert len(report.contestant("a").wall_ns) == 7


def test_outliers_are_kept_and_the_ratio_is_paired():
    calls = {"slow": 0}

    def slow(_):
        calls["slow"] += 1
        spin(0.02 if calls["slow"] == 30 else 0.002)

    report = measure(
        [Contestant("slow", slow, [0]), Contestant("fast", lambda _: spin(0.001), [0])],
        duration_s=0,
        min_runs=64,
        warm_up=QUICK,
    )
    assert max(report.contestant("slow").wall_ns) >= 20_000_000
    speedup = report.speedup("fast")
    assert speedup.baseline == "slow"
    assert speedup.wall.low <= speedup.wall.value <= speedup.wall.high
    assert 1.5 < speedup.wall.value < 2.5
    assert report.speedup("slow") is None


def test_cpu_time_does_not_count_waiting():
    report = measure(
        [
            Contestant("waits", lambda _: time.sleep(0.005), [0]),
            Contestant("works", lambda _: spin(0.005), [0]),
        ],
        duration_s=0,
        min_runs=20,
        warm_up=QUICK,
    )
    assert report.contestant("waits").cpu_ms < 0.5 * report.contestant("works").cpu_ms


def test_collector_is_back_on_after_an_error():
    def fail(_):
        raise RuntimeError("broken runtime")

    with pytest.raises(RuntimeError, match="broken runtime"):
        measure([Contestant("a", fail, [0])])
    assert gc.isenabled()


def test_progress_is_told_between_runs():
    seen = []
    measure(
        [Contestant("a", lambda _: spin(0.01), [0])],
        duration_s=0.7,
        warm_up=QUICK,
        min_runs=1,
        progress=seen.append,
    )
    measured = [entry for entry in seen if entry.phase == "measure"]
    assert len(measured) >= 2
    assert all(a.rounds < b.rounds for a, b in pairwise(measured))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"contestants": []}, "no contestants"),
        ({"contestants": [recorder("a", []), recorder("a", [])]}, "differ"),
        ({"contestants": [Contestant("a", print, [])]}, "no inputs"),
        ({"contestants": [recorder("a", [])], "baseline": "b"}, "baseline"),
        ({"contestants": [recorder("a", [])], "min_runs": 5, "max_runs": 2}, "contradict"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(**arguments)


def test_overhead_against_a_bare_loop_is_within_two_percent():
    work = five_ms_of_work()
    bare_ns = []

    def bare(_):
        start = time.perf_counter_ns()
        work()
        bare_ns.append(time.perf_counter_ns() - start)

    report = measure(
        [Contestant("measured", lambda _: work(), [0]), Contestant("bare", bare, [0])],
        duration_s=0,
        min_runs=200,
    )
    # The fastest tenth of each: runs that others on this machine did not interrupt.
    measured, bare = (
        np.quantile(runs, 0.1) for runs in (report.contestant("measured").wall_ns, bare_ns[-200:])
    )
    assert abs(measured / bare - 1) < 0.02


def five_ms_of_work():
    """About 5 ms of numpy on this machine."""
    block = np.random.default_rng(0).random((64, 64))

    def once():
        return block @ block

    start = time.perf_counter_ns()
    for _ in range(200):
        once()
    each_ns = (time.perf_counter_ns() - start) / 200
    repeats = max(1, round(5e6 / each_ns))

    def work():
        for _ in range(repeats):
            once()

    return work


def spin(seconds):
    end = time.perf_counter_ns() + int(seconds * 1e9)
    while time.perf_counter_ns() < end:
        pass
