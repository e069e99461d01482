import pytest

from edgeq.benchmark.latency import ContestantLatency, LatencyReport, Speedup
from edgeq.benchmark.ratio import paired_ratio
from edgeq.benchmark.steady import WarmUpRecord


@pytest.fixture
def latency():
    """A latency report of 100 runs as JSON data."""
    steady = WarmUpRecord(discarded=15, steady=True, last_medians_ms=(1.0,))
    slow = tuple(20_000_000 + 1000 * i for i in range(100))
    fast = (*(10_000_000 + 1000 * i for i in range(99)), 90_000_000)
    ratio = paired_ratio(slow, fast)
    contestants = (
        ContestantLatency("float32", slow, slow, steady, peak_memory_mb=80.4),
        ContestantLatency("int8 with quite a long name of its own", fast, fast, steady, peak_memory_mb=61.0),
    )
    speedups = (Speedup(contestants[1].name, "float32", ratio, ratio),)
    return LatencyReport(contestants, speedups, 3.0, "random", 0).to_json()
