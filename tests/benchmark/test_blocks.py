"""Sessions that time themselves, played by ones whose machine slows down all the while."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgeq.benchmark.blocks import SelfTimed, measure_blocks
from edgeq.benchmark.course import run_course
from edgeq.benchmark.findings import benchmark_findings
from edgeq.benchmark.ratio import paired_ratio
from edgeq.benchmark.steady import WarmUp
from edgeq.errors import UnavailableError
from edgeq.runtimes.optional import SelfTimedSession

from .test_course import HEAD, SPEC, FakeSession, WholePath, course, entry, ignore

RULE = WarmUp(window_runs=2, window_s=0.001, windows=3)


@dataclass
class Board:
    """Each block finds it 2 % slower than the one before."""

    slowness: float = 1.0
    asked: list[str] = field(default_factory=list)


@dataclass
class OwnTimes(FakeSession):
    board: Board = field(default_factory=Board)
    name: str = ""
    run_ns: int = 1_000_000
    cold: int = 0
    """Inferences that take twice the time, in a process that does not warm up."""
    timing: str = "timed by itself"

    def time_runs(self, tensor, *, runs, duration_s, warm_up_s):
        self.board.asked.append((self.name, runs, duration_s, warm_up_s))
        self.board.slowness *= 1.02
        count = max(runs, round(duration_s * 1e9 / self.run_ns))
        slow = 0 if warm_up_s else self.cold
        return tuple(round(self.run_ns * self.board.slowness * (1 + (i < slow))) for i in range(count))


def pair(**more):
    board = Board()
    made = [OwnTimes((1, 3, 16, 16), board=board, name=name, run_ns=ns, **more)
            for name, ns in (("float", 3_000_000), ("int8", 2_000_000))]  # fmt: skip
    return board, [SelfTimed(session.name, session, [np.zeros(1), np.ones(1)]) for session in made]


def test_blocks_alternate_so_that_a_drift_cancels():
    board, contestants = pair()
    told = []
    report = measure_blocks(contestants, duration_s=0.5, min_runs=30, warm_up=RULE, progress=told.append)
    names = [name for name, *_ in board.asked[2:]]
    assert names == ["float", "int8", "int8", "float"] * 3
    sizes = {runs for _, runs, *_ in board.asked[2:]}
    assert sizes == {report.block}
    assert {len(entry.wall_ns) for entry in report.contestants} == {6 * report.block}
    # Half a second of inferences in all, the machine being slower than the trial said.
    assert 0.45 < sum(sum(entry.wall_ns) for entry in report.contestants) / 1e9 < 0.75
    ratio = report.speedup("int8").wall
    assert 1.45 < ratio.low <= 1.5 <= ratio.high < 1.55
    assert [state.phase for state in told] == ["measure"] * 6
    assert told[-1].elapsed_s == pytest.approx(0.5)


def test_every_process_warms_up_for_as_long_as_the_slowest_needed():
    board, contestants = pair(cold=4)
    report = measure_blocks(contestants, duration_s=0.1, min_runs=6, warm_up=RULE)
    assert [warm_up_s for *_, warm_up_s in board.asked[:2]] == [0.0, 0.0]
    warm_ups = {warm_up_s for *_, warm_up_s in board.asked[2:]}
    assert len(warm_ups) == 1
    # Of the float model: four cold runs and three windows of two warm ones.
    assert min(warm_ups) == pytest.approx(1.02 * (4 * 0.006 + 6 * 0.003))
    assert all(entry.warm_up.steady for entry in report.contestants)
    assert max(report.contestants[0].wall_ns) < 6_000_000


def test_what_is_not_measured_is_empty_and_judged_so():
    _, contestants = pair()
    report = measure_blocks(contestants, duration_s=0.1, min_runs=64, warm_up=RULE)
    assert report.contestant("int8").cpu_ms is None
    document = json.loads(json.dumps(report.to_json()))
    assert document["contestants"][0]["cpu_ms"] is None
    assert document["speedups"][0]["cpu"] is None
    assert document["block_runs"] == report.block
    slower = measure_blocks(contestants[::-1], duration_s=0.1, min_runs=64, warm_up=RULE)
    (finding,) = [f for f in benchmark_findings(slower, int8="float") if f.kind.value == "not-faster"]
    assert "CPU" not in finding.message
    assert "cpu_speedup" not in finding.numbers


def test_a_bootstrap_of_processes_is_wider_than_one_of_runs():
    rng = np.random.default_rng(0)
    base, other = (np.repeat(rng.normal(level, 0.05 * level, 8), 100) for level in (3e6, 2e6))
    base = base + rng.normal(0, 1e3, 800)
    narrow, wide = (paired_ratio(base, other, block=block) for block in (1, 100))
    assert wide.value == narrow.value
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert paired_ratio(base, other, block=10**9).rounds == 800


def own_entry(name):
    made = entry(name)
    made.runtime.session = OwnTimes((1, 3, 16, 16), name=name)
    return made


def test_a_course_leaves_out_what_it_cannot_know():
    judged = own_entry("int8")
    assert isinstance(judged.runtime.session, SelfTimedSession)
    outcome = run_course(
        course(own_entry("float"), judged, path=WholePath("int8", SPEC, HEAD), rate_hz=10.0, memory=True),
        progress=ignore,
    )
    assert (outcome.stages, outcome.rate) == (None, None)
    assert outcome.report.contestant("int8").peak_memory_mb is None
    assert outcome.remarks == ("timed by itself; CPU time, peak memory and the whole path were not measured",)
    assert judged.runtime.session.seen == []


def test_times_taken_otherwise_are_not_compared():
    with pytest.raises(UnavailableError, match="plain cannot be timed so"):
        run_course(course(own_entry("int8"), entry("plain")), progress=ignore)
