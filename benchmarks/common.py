"""What the benchmarks share: commands run in measured child processes, and results as JSON data.

This module and what it imports stay small on purpose: a child process starts with its parent's peak memory
as the floor of its own, so numpy and the runtimes are loaded in the children only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.machine import installed_version, machine_facts

ROOT = Path(__file__).resolve().parents[1]
YOLOX_NANO = "models/yolox_nano_coco_416.onnx"
COCO = "coco-mini/data.yaml"
"""To calibrate on: its train split."""
COCO_LABELS = "coco-mini/annotations/instances_val2017.json"
"""To evaluate on: unlike the YOLO labels it tells crowds, which the metric leaves out."""
IMAGENET = "imagenet-mini/labels.csv"
TARGET = "x86-onnxruntime"
_TAIL_LINES = 15


class FailedError(Exception):
    """A command ended with another exit code than 0; the text holds the command and what it said last."""

    def __init__(self, text: str, output: str = "") -> None:
        super().__init__(text)
        self.output = output
        """All that it said."""


@dataclass(frozen=True)
class Finished:
    """A child process that has ended."""

    stdout: str
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    """High-water mark of its resident memory, or of a child of its own where that is more; 10^6 bytes."""

    def json(self) -> Any:
        """What it printed, as data."""
        return json.loads(self.stdout)

    def last_line(self) -> Any:
        """The last line that it printed, as data."""
        return json.loads(self.stdout.strip().splitlines()[-1])

    def cost(self) -> dict[str, float]:
        """The three costs, rounded to what repeats."""
        return {
            "wall_s": round(self.wall_s, 2),
            "cpu_s": round(self.cpu_s, 2),
            "peak_rss_mb": round(self.peak_rss_mb, 1),
        }


def run(command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end.

    Raises:
        FailedError: its exit code is not 0.
    """
    words = [str(word) for word in command]
    sys.stderr.write(f"$ {shlex.join(words)}\n")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started_ns = time.perf_counter_ns()
        child = subprocess.Popen(
            words, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
        wall_s = (time.perf_counter_ns() - started_ns) / 1e9
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        stdout, stderr = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if child.returncode != 0:
        tail = "\n".join((stdout + stderr).strip().splitlines()[-_TAIL_LINES:])
        raise FailedError(f"exit code {child.returncode}: {shlex.join(words)}\n{tail}", stdout + stderr)
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Finished(stdout, wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def edgeq(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, empty_cache: bool = True
) -> Finished:
    """Run the edgeq of this interpreter with ``--json``.

    Args:
        arguments: command and flags.
        environment: added to this process's.
        empty_cache: statistics of earlier runs are out of its sight, so that its cost is that of a first run.

    Raises:
        FailedError: its exit code is not 0.
    """
    command = [*edgeq_command(), *arguments, "--json", "--quiet"]
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as cache:
        own = {"XDG_CACHE_HOME": cache} if empty_cache else {}
        return run(command, environment={**own, **(environment or {})})


def edgeq_command() -> list[str]:
    """The installed command beside this interpreter, else the module."""
    installed = Path(sys.executable).with_name("edgeq")
    return [str(installed)] if installed.is_file() else [sys.executable, "-m", "edgeq.cli.main"]


def report(bundle: Path, name: str) -> Any:
    """One of a bundle's reports."""
    return json.loads((bundle / "reports" / f"{name}.json").read_text(encoding="utf-8"))


def convolutions(bundle: Path) -> tuple[int, int]:
    """Convolutions that the runtime runs in INT8, and all of them, from the bundle's audit."""
    found = [layer["precision"] for layer in report(bundle, "audit")["layers"] if layer["op"] == "Conv"]
    return found.count("int8"), len(found)


def conditions() -> dict[str, Any]:
    """When, on what and beside how much other work a measurement starts."""
    facts = machine_facts()
    exporters = {name: installed_version(name) for name in ("torch", "ultralytics")}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "commit": _git("describe", "--always", "--dirty", "--exclude=*"),
        "edgeq_tree": _git("rev-parse", "--short=12", "HEAD:edgeq"),
        "machine": {**facts, "memory_gb": _memory_gb()},
        "exporter_versions": exporters,
    }


def write(path: Path, document: Mapping[str, Any]) -> None:
    """The document as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def arguments(description: str | None, name: str) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    default = os.environ.get("EDGEQ_SHARED_DATA") or ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of the shared test data")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / f"{name}.json", help="JSON file"
    )
    return parser


def model_flags(parser: argparse.ArgumentParser, known: Iterable[str]) -> None:
    """Add the flags of a benchmark with one row a model."""
    parser.add_argument("--models", help=f"some of {', '.join(known)}, with commas between")
    parser.add_argument("--again", action="store_true", help="measure also what the result file holds")


def measure_models(
    parser: argparse.ArgumentParser,
    given: argparse.Namespace,
    known: Iterable[str],
    row: Callable[[str], dict[str, Any]],
    line: Callable[[dict[str, Any]], str],
) -> int:
    """Measure and write one row a model, go on where an earlier run stopped, print them all; the exit code.

    Args:
        parser: for a usage error, where a model is unknown.
        given: with ``models``, ``again`` and ``out``.
        known: names of the models, in the order of the rows.
        row: what is measured of one model.
        line: a row in words.
    """
    order = list(known)
    names = given.models.split(",") if given.models else order
    unknown = [name for name in names if name not in order]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(order)}")
    rows: dict[str, dict[str, Any]] = {}
    if given.out.is_file():
        rows = {entry["name"]: entry for entry in json.loads(given.out.read_text(encoding="utf-8"))["rows"]}
    failed = False
    for name in names:
        if name in rows and not given.again:
            continue
        try:
            rows[name] = row(name)
        except FailedError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
            continue
        write(given.out, {"rows": [rows[key] for key in order if key in rows]})
    for key in order:
        if key in rows:
            print(line(rows[key]))
    return 1 if failed else 0


def _git(*words: str) -> str:
    """What git says of this checkout; ``unknown`` outside of one."""
    found = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _memory_gb() -> float:
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
