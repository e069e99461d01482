import json
import math
from dataclasses import fields

import pytest

from edgeq.errors import InputError
from edgeq.gate import Budget, Measured, Verdict, check, merge
from edgeq.types import Task

LIMITS = [field.name for field in fields(Budget) if field.name != "refuse_throttled"]


def one(budget, measured):
    (line,) = check(budget, measured).lines
    return line


def test_kept_and_broken():
    report = check(
        Budget(max_map_drop=0.5, max_p95_ms=60, min_speedup=1.2),
        Measured(map_drop_points=0.3, p95_ms=61.0, speedup=1.5),
    )
    assert [line.verdict for line in report.lines] == [Verdict.PASS, Verdict.FAIL, Verdict.PASS]
    assert not report.passed
    assert [line.limit for line in report.failures] == ["max_p95_ms"]
    assert json.loads(json.dumps(report.to_json()))["lines"][1]["sense"] == "<="


@pytest.mark.parametrize("limit", LIMITS)
def test_asked_for_and_not_measured_fails(limit):
    line = one(Budget(**{limit: 0.5}), Measured())
    assert line.verdict is Verdict.NOT_MEASURED
    assert not line.passed
    assert line.remark.startswith("not measured: ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_never_passes(value):
    for budget in (Budget(max_map_drop=0.5), Budget(min_speedup=1.0)):
        assert not check(budget, Measured(map_drop_points=value, speedup=value)).passed


@pytest.mark.parametrize("limit", LIMITS)
def test_the_limit_itself_passes(limit):
    values = {
        "map_drop_points": 0.5,
        "top1_drop_points": 0.5,
        "map50_95": 0.5,
        "size_mb": 0.5,
        "memory_mb": 0.5,
        "speedup": 0.5,
        **{f"p{p}_ms": 0.5 for p in (50, 90, 95, 99)},
    }
    assert one(Budget(**{limit: 0.5}), Measured(**values)).passed


def test_a_gain_passes_a_drop_limit():
    assert one(Budget(max_map_drop=0.0), Measured(map_drop_points=-0.4)).passed


@pytest.mark.parametrize(("drop", "verdict"), [(0.4, Verdict.PASS), (0.6, Verdict.FAIL)])
def test_not_resolvable_is_said_either_way(drop, verdict):
    measured = Measured(map_drop_points=drop, map_drop_interval_points=(drop - 0.5, drop + 0.5))
    line = one(Budget(max_map_drop=0.5), measured)
    assert line.verdict is verdict
    assert "not resolvable" in line.remark
    assert "more images" in line.remark


def test_resolved_drop_has_no_remark():
    measured = Measured(map_drop_points=0.1, map_drop_interval_points=(-0.1, 0.3))
    assert one(Budget(max_map_drop=0.5), measured).remark == ""


@pytest.mark.parametrize(
    ("throttled", "verdict"),
    [(False, Verdict.PASS), (True, Verdict.FAIL), (None, Verdict.NOT_MEASURED)],
)
def test_throttled_run(throttled, verdict):
    assert one(Budget(refuse_throttled=True), Measured(throttled=throttled)).verdict is verdict


def test_flags_win_over_the_target_and_the_other_tasks_default_goes():
    default = Budget(max_map_drop=1.0, max_top1_drop=1.0, max_size_mb=10)
    merged = merge(Budget(max_map_drop=0.0, max_p99_ms=5), default, task=Task.DETECT)
    assert merged == Budget(max_map_drop=0.0, max_size_mb=10, max_p99_ms=5)
    assert merge(Budget(), default, task=Task.CLASSIFY) == Budget(max_top1_drop=1.0, max_size_mb=10)
    assert merge(Budget(), default) == default


def test_a_limit_that_the_user_set_for_the_wrong_task_is_not_forgotten():
    merged = merge(Budget(max_top1_drop=0.5), Budget(max_map_drop=1.0), task=Task.DETECT)
    assert not check(merged, Measured(map_drop_points=0.0)).passed


def test_no_limit_is_an_error_not_a_pass():
    with pytest.raises(InputError, match="no limit"):
        check(Budget(), Measured(map_drop_points=0.0))


@pytest.mark.parametrize("values", [{"max_p50_ms": -1}, {"max_size_mb": math.nan}, {"min_map": 34.2}])
def test_senseless_limits(values):
    with pytest.raises(InputError, match=next(iter(values))):
        Budget(**values)
