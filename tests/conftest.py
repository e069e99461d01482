"""Shared by all tests: where the real models and images are, if they are here; Ctrl-C as at a terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.benchmark.latency import ContestantLatency, LatencyReport, Speedup
from edgeq.benchmark.ratio import paired_ratio
from edgeq.benchmark.steady import WarmUpRecord

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """A shell's background job ignores SIGINT and hands that on: commands that the tests interrupt would not
    notice."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("EDGEQ_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"shared test data not found at {folder} (set EDGEQ_SHARED_DATA)")
    return folder


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
