import json
import time

import pytest

from edgeq.benchmark.stages import Stage, measure_stages
from edgeq.benchmark.steady import WarmUp

QUICK = WarmUp(window_runs=2, window_s=0.0, windows=2, tolerance=100.0)


def test_stages_chain_and_add_up_to_the_whole():
    seen = []
    stages = [
        Stage("pre", lambda item: item + 1),
        Stage("infer", lambda value: time.sleep(0.002) or value * 10),
        Stage("post", seen.append),
    ]
    report = measure_stages([1, 2], stages, duration_s=0, min_runs=20, warm_up=QUICK)
    assert set(seen) == {20, 30}
    assert [stage.name for stage in report.stages] == ["pre", "infer", "post"]
    sums = [sum(parts) for parts in zip(*(stage.wall_ns for stage in report.stages), strict=True)]
    assert tuple(sums) == report.total.wall_ns
    assert report.shares()["infer"] > 0.8
    assert sum(report.shares().values()) == pytest.approx(1)
    assert json.loads(json.dumps(report.to_json()))["total"]["p50_ms"] > 0


@pytest.mark.parametrize(("items", "names"), [([], ["a"]), ([1], []), ([1], ["a", "a"])])
def test_bad_arguments(items, names):
    with pytest.raises(ValueError, match="stages need"):
        measure_stages(items, [Stage(name, print) for name in names])
