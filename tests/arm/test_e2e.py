"""The commands of a user against the emulated board, start to end. Minutes: EDGEQ_ARM_TESTS=full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.arm.cache import Environment
from tools.arm.e2e import Settings, walk

pytest.importorskip("ai_edge_litert", reason="the runtime tflite is not installed")


def test_setup_evaluate_audit_bench_and_gate_without_a_manual_step(full: Environment, tmp_path: Path) -> None:
    document = walk(Settings(images=8, duration="5s"), tmp_path, tell=print)
    assert document["board_start_s"] < 60
    commands = [step["command"].split()[1] for step in document["steps"]]
    both_forms = ["quantize", "evaluate"] * 2
    assert commands == ["device", *both_forms, "audit", "bench", "gate", "gate"]
    facts = [step["facts"] for step in document["steps"]]
    integers, mixed = facts[2]["parity"], facts[4]["parity"]
    assert integers["identical"] is True
    for parity in (integers, mixed):
        told = parity["tensors"]
        assert told["equal_pixels_count"] == told["image_count"] == 8
        assert told["int8_part_equal"] is True
        assert parity["good"] is True
    assert "emulated" in facts[-3]["findings"]
    assert facts[-1]["lines"]["max_p50_ms"] == "not-measured"
