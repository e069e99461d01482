"""The whole way to a board and back, by the commands that a user types, on the emulated one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import UnavailableError
from edgeq.resources import data_folder
from tools.arm import board

__all__ = ["Settings", "Step", "walk"]

TARGET = "raspberry-pi-5"
_BUDGET = ("--max-map-drop", "10", "--max-size-mb", "50")
"""Wide: what is shown is that the gate judges what was measured there."""
_EMULATED = "emulated"
Facts = Callable[[Any], dict[str, Any]]
"""From a command's document to its key figures."""


@dataclass(frozen=True)
class Settings:
    """What to take there; the demo's model and images where nothing is said."""

    model: Path | None = None
    data: Path | None = None
    bundle: Path | None = None
    """Made before; None: quantised first."""
    images: int = 32
    duration: str = "20s"


@dataclass(frozen=True)
class Step:
    """One command and what came of it."""

    command: str
    exit_code: int
    expected_code: int
    seconds: float
    facts: Mapping[str, Any]
    """The report's key figures."""
    says_emulated: bool
    """Whether its report carries the label."""
    said: str
    """The end of stderr, where it did not end as expected."""

    @property
    def good(self) -> bool:
        """Whether it ended as it should."""
        return self.exit_code == self.expected_code


def walk(settings: Settings, folder: Path, *, tell: Callable[[str], None]) -> dict[str, Any]:
    """Set the board up, then quantise, evaluate, audit, bench and gate; a document of all steps.

    What is quantised here is taken there in two forms: integers only, and with float inputs and outputs.

    Args:
        settings: what to take there.
        folder: for the bundle.
        tell: told about each command before it runs.

    Raises:
        UnavailableError: there is no board, or a step did not end as it should, or does not say that its
            numbers are those of an emulated board.
    """
    demo = data_folder("demo")
    data = settings.data or demo / "data.yaml"
    steps: list[Step] = []
    with board.running_board(board.Options()) as running:
        environment = {"EDGEQ_SSH": f"ssh -F {running.ssh_config}"}

        def run(*words: str | Path, facts: Facts, code: int = 0) -> None:
            text = " ".join(["edgeq", *map(str, words)])
            tell(text)
            step = _run(words, environment, facts, code)
            steps.append(step)
            if not step.good:
                raise UnavailableError(f"exit code {step.exit_code} of '{text}':\n{step.said}")
            if "--on" in words and not step.says_emulated:
                raise UnavailableError(f"the report of '{text}' does not say that the board is emulated")

        on = ("--on", running.host)
        run("device", "setup", running.host, "--offline", "--target", TARGET, facts=_setup_facts)
        images = ("--images", str(settings.images))
        bundle = settings.bundle
        if bundle is None:
            model = settings.model or demo / "model.onnx"
            for bundle, io in ((folder / "integers", "int8"), (folder / "bundle", "float")):
                quantize = ("quantize", model, "--target", TARGET, "--io", io, "--calib", data, "-o", bundle)
                run(*quantize, facts=_quantize_facts)
                run("evaluate", bundle, "--data", data, *images, *on, facts=_accuracy_facts)
        else:
            run("evaluate", bundle, "--data", data, *images, *on, facts=_accuracy_facts)
        run("audit", bundle, *on, facts=_audit_facts)
        # Few runs: an emulated inference takes a second, and its speed says nothing anyway.
        few = ("--duration", settings.duration, "--min-runs", "11")
        run("bench", bundle, *on, *few, facts=_latency_facts)
        run("gate", bundle, *on, *_BUDGET, facts=_gate_facts)
        # Speed of an emulated board passes no limit, however wide.
        run("gate", bundle, *on, "--max-p50-ms", "100000", facts=_gate_facts, code=3)
        started_s = running.started_s
    return {"board_start_s": started_s, "steps": [asdict(step) for step in steps]}


def _run(words: Sequence[str | Path], environment: Mapping[str, str], facts: Facts, code: int) -> Step:
    command = [sys.executable, "-m", "edgeq.cli.main", *map(str, words), "--json"]
    start = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    seconds = round(time.perf_counter() - start, 1)
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = {}
    good = done.returncode == code
    return Step(
        command=" ".join(["edgeq", *map(str, words)]),
        exit_code=done.returncode,
        expected_code=code,
        seconds=seconds,
        facts=facts(document) if good else {},
        says_emulated=_EMULATED in json.dumps(document.get("device") or ""),
        said="" if good else (done.stderr or done.stdout)[-1500:],
    )


def _setup_facts(document: Any) -> dict[str, Any]:
    return {key: document.get(key) for key in ("device", "packages", "sent_mb") if key in document}


def _quantize_facts(document: Any) -> dict[str, Any]:
    return {key: document.get(key) for key in ("bundle", "size_mb", "target") if key in document}


def _accuracy_facts(document: Any) -> dict[str, Any]:
    return {
        "image_count": document["image_count"],
        "map50_95": {entry["name"]: entry.get("map50_95") for entry in document["models"]},
        "drop_points": (document["drop"] or {}).get("drop_points"),
        "parity": document["parity"],
        "native_resize_parity": document["native_resize_parity"],
        "sent_mb": document["device"]["sent_mb"],
    }


def _audit_facts(document: Any) -> dict[str, Any]:
    return {key: document[key] for key in ("compute_layer_count", "int8_compute_count", "details")}


def _latency_facts(document: Any) -> dict[str, Any]:
    return {
        "emulated_p50_ms": {entry["name"]: entry["p50_ms"] for entry in document["contestants"]},
        "runs": {entry["name"]: entry["runs"] for entry in document["contestants"]},
        "findings": [entry["kind"] for entry in document["findings"]],
    }


def _gate_facts(document: Any) -> dict[str, Any]:
    return {
        "passed": document["passed"],
        "lines": {line["limit"]: line["verdict"] for line in document["lines"]},
    }
