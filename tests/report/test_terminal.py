import io

from edgeq.gate import Budget, Measured, check
from edgeq.report.terminal import (
    accuracy_table,
    audit_table,
    findings_block,
    gate_table,
    latency_table,
    show,
    stage_table,
)
from edgeq.runtimes.base import AuditReport, LayerAudit, LayerPrecision


def text_of(*parts):
    stream = io.StringIO()
    show(*parts, file=stream)
    text = stream.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "…" not in text, "a value was cut off"
    return text


def test_accuracy():
    rows = [
        {"name": "float", "map50_95": 0.34213, "map50": 0.5123},
        {
            "name": "edgeq int8",
            "map50_95": 0.3388,
            "map50": 0.5,
            "drop_points": 0.333,
            "drop_interval_points": [-0.21, 0.91],
            "size_mb": 1.234,
        },
    ]
    text = text_of(accuracy_table(rows))
    for piece in ("0.3421", "0.3388", "0.33 (-0.21..0.91)", "1.23", "mAP 50-95"):
        assert piece in text
    assert "top-1" not in text


def test_classification_accuracy():
    text = text_of(accuracy_table([{"name": "int8", "top1": 0.76, "top5": 0.9, "drop_points": -0.0001}]))
    assert "0.7600" in text
    assert " 0.00" in text
    assert "mAP" not in text


def test_latency(latency):
    text = text_of(latency_table(latency))
    assert "20.05" in text
    assert "2.00x (" in text
    assert "100 runs each" in text
    assert "p99 needs 662" in text
    assert "61" in text
    assert "80" in text


def test_latency_of_nothing():
    assert text_of(latency_table({"contestants": []}))


def test_stages():
    report = {
        "stages": [{"name": "pre-process", "p50_ms": 1.5}, {"name": "infer", "p50_ms": 8.5, "p90_ms": 9}],
        "total": {"name": "total", "p50_ms": 10.0},
        "shares": {"pre-process": 0.15, "infer": 0.85},
    }
    text = text_of(stage_table(report))
    assert "15 %" in text
    assert "total" in text


def test_gate():
    report = check(
        Budget(max_map_drop=0.5, max_p99_ms=60, refuse_throttled=True),
        Measured(map_drop_points=0.7, map_drop_interval_points=(0.1, 1.2), throttled=False),
    )
    text = text_of(gate_table(report))
    for piece in ("--max-map-drop", "<= 0.5 points", "0.700", "FAIL", "NOT MEASURED", "not resolvable"):
        assert piece in text
    assert "2 of 3 limits" in text
    passed = check(Budget(max_size_mb=4), Measured(size_mb=1.2))
    assert text_of(gate_table(passed)).splitlines()[-1] == "PASS"


def test_audit():
    layers = [
        LayerAudit(f"/backbone/[bold]/conv{i}\x1b[31m", "Conv", LayerPrecision.FLOAT, "FusedConv", "kept")
        for i in range(30)
    ]
    layers.append(LayerAudit("body", "Conv", LayerPrecision.INT8, "QLinearConv"))
    text = text_of(audit_table(AuditReport("onnxruntime", tuple(layers))))
    assert "1 of 31 convolutions" in text
    assert "/backbone/[bold]/conv0" in text.replace("\n", "")
    assert "and 10 more" in text


def test_findings():
    text = text_of(findings_block([{"message": "slow", "fix": "buy a board"}]))
    assert text == "note: slow\n  fix: buy a board\n"


def test_plain_on_a_stream_that_cannot_do_unicode():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    show(accuracy_table([{"name": "a", "map50_95": 0.5}]), file=stream)
    stream.flush()
    assert b"0.5000" in raw.getvalue()
