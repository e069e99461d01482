import json

import numpy as np
import pytest

from edgeq.benchmark.findings import FindingKind, benchmark_findings
from edgeq.benchmark.latency import ContestantLatency, LatencyReport, Speedup
from edgeq.benchmark.ratio import paired_ratio
from edgeq.benchmark.steady import WarmUpRecord
from edgeq.benchmark.telemetry import HealthRecord, HealthSample
from edgeq.runtimes.base import AuditReport, LayerAudit, LayerPrecision

STEADY = WarmUpRecord(discarded=15, steady=True, last_medians_ms=(10.0, 10.0, 10.0))


def report(float_ms, int8_ms, *, runs=1000, noise=0.01, warm_up=STEADY):
    rng = np.random.default_rng(0)
    samples = {
        name: tuple(int(value) for value in center * 1e6 * rng.normal(1, noise, runs))
        for name, center in (("float32", float_ms), ("int8", int8_ms))
    }
    contestants = tuple(ContestantLatency(name, ns, ns, warm_up) for name, ns in samples.items())
    ratio = paired_ratio(samples["float32"], samples["int8"])
    return LatencyReport(contestants, (Speedup("int8", "float32", ratio, ratio),), 10.0, "random", 0)


def health(**changes):
    sample = HealthSample(0.0, 0.0, 0.0, None, None, {}, None, None)
    values = {
        "before": sample,
        "during": (sample,),
        "after": sample,
        "governors": (),
        "max_frequency_mhz": None,
        "peak_rss_mb": None,
        "throttling": (),
        "sensors": (),
    }
    return HealthRecord(**{**values, **changes})


def layer(name, precision, reason=""):
    return LayerAudit(name, "Conv", precision, "FusedConv", reason)


AUDIT = AuditReport(
    "onnxruntime",
    (
        layer("stem", LayerPrecision.FLOAT, "kept in float by the tuner"),
        layer("head", LayerPrecision.FLOAT, "tail stays float"),
        layer("body", LayerPrecision.INT8),
    ),
)


def test_faster_int8_on_a_quiet_machine_gives_nothing():
    assert benchmark_findings(report(20, 10), int8="int8", audit=AUDIT, health=health()) == ()


def test_slower_int8_names_the_layers_and_what_to_do():
    (finding,) = benchmark_findings(report(10, 14), int8="int8", audit=AUDIT)
    assert finding.kind is FindingKind.NOT_FASTER
    assert "slower than float32" in finding.message
    assert finding.numbers["speedup"] == pytest.approx(10 / 14, rel=0.01)
    assert [entry.name for entry in finding.layers] == ["stem", "head"]
    assert "tail stays float" in finding.fix
    assert json.loads(json.dumps(finding.to_json()))["layers"][0]["name"] == "stem"


def test_no_difference_is_not_called_a_gain():
    (finding,) = benchmark_findings(report(10, 10, noise=0.05), int8="int8")
    assert "not noticeably faster" in finding.message
    assert "edgeq audit" in finding.fix


def test_all_int8_and_still_slow_blames_no_layer():
    audit = AuditReport("onnxruntime", (layer("body", LayerPrecision.INT8),))
    (finding,) = benchmark_findings(report(10, 14), int8="int8", audit=audit)
    assert finding.layers == ()
    assert "doctor" in finding.fix


def test_noise_from_spread_and_from_load():
    (finding,) = benchmark_findings(report(20, 10, noise=0.3))
    assert finding.kind is FindingKind.NOISY
    assert finding.numbers["spread"] > 0.25
    loaded = HealthSample(1.0, 1.3, 0.4, None, None, {}, None, None)
    (finding,) = benchmark_findings(report(20, 10), health=health(during=(loaded,), after=loaded))
    assert finding.numbers == {"others_cores": 1.3, "steal_cores": 0.4}


def test_throttling_comes_first():
    found = benchmark_findings(report(10, 14), int8="int8", health=health(throttling=("the clock fell",)))
    assert [entry.kind for entry in found] == [FindingKind.THROTTLED, FindingKind.NOT_FASTER]


def test_unsteady_and_short_runs_are_said():
    unsteady = WarmUpRecord(discarded=99, steady=False, last_medians_ms=())
    found = benchmark_findings(report(20, 10, runs=64, warm_up=unsteady))
    assert [entry.kind for entry in found] == [FindingKind.NOT_STEADY, FindingKind.TOO_FEW_RUNS]
    assert "p99 needs 662" in found[1].message


def test_a_difference_as_between_two_sessions_of_one_model_is_no_gain():
    (finding,) = benchmark_findings(report(10, 9.93, noise=0.002), int8="int8")
    assert finding.numbers["speedup_low"] > 1
    assert finding.kind is FindingKind.NOT_FASTER
