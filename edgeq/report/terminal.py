"""Tables for the terminal: readable in 80 columns, and as plain text where stdout is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeq.gate import GateReport, Verdict
from edgeq.report.numbers import UNKNOWN, interval, list_of_maps, metrics_in, number, plain
from edgeq.runtimes.base import AuditReport, LayerPrecision, LintFinding

__all__ = [
    "accuracy_table",
    "audit_table",
    "findings_block",
    "gate_table",
    "latency_table",
    "layer_table",
    "lint_table",
    "show",
    "stage_table",
]

_PLAIN_WIDTH = 80
_VERDICT_STYLE = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.NOT_MEASURED: "bold yellow"}
_VERDICT_TEXT = {Verdict.PASS: "PASS", Verdict.FAIL: "FAIL", Verdict.NOT_MEASURED: "NOT MEASURED"}


def show(*parts: RenderableType, file: TextIO | None = None) -> None:
    """Print to stdout, or to ``file``; 80 columns and no colour where that is not a terminal."""
    stream = file or sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    console = Console(file=stream, width=width, highlight=False, emoji=False, markup=False)
    for part in parts:
        console.print(part)


def accuracy_table(rows: Sequence[Mapping[str, object]], *, title: str = "Accuracy") -> Table:
    """Models side by side.

    Args:
        rows: one mapping per model with ``name`` and what was measured of ``map50_95``, ``map50``, ``map75``,
            ``top1``, ``top5`` (0..1), ``drop_points``, ``drop_interval_points``, ``size_mb``.
        title: of the table.
    """
    shown = metrics_in(rows)
    sized = any(row.get("size_mb") is not None for row in rows)
    table = _table(title, "model", *shown.values(), "drop, points", *(["MB"] if sized else []))
    for row in rows:
        cells = [number(row.get(key), 4) for key in shown]
        cells.append(_with_interval(row.get("drop_points"), row.get("drop_interval_points")))
        cells += [number(row.get("size_mb"))] if sized else []
        table.add_row(_name(row.get("name")), *map(Text, cells))
    return table


def latency_table(
    report: Mapping[str, object], *, title: str = "Latency, ms per inference"
) -> RenderableType:
    """Contestants side by side, with what could not be quoted below.

    Args:
        report: `edgeq.benchmark.latency.LatencyReport.to_json`.
        title: of the table.
    """
    rows = list_of_maps(report.get("contestants"))
    speedups = {entry.get("name"): entry for entry in list_of_maps(report.get("speedups"))}
    percents = [key for key in ("p50_ms", "p90_ms", "p99_ms") if rows]
    remember = any(row.get("peak_memory_mb") is not None for row in rows)
    heads = [key[: -len("_ms")] for key in percents]
    table = _table(title, "contestant", *heads, "CPU", "speed-up", *(["peak MB"] if remember else []))
    for row in rows:
        cells = [number(row.get(key)) for key in percents] + [number(row.get("cpu_ms"))]
        cells.append(_speedup(speedups.get(row.get("name"))))
        cells += [number(row.get("peak_memory_mb"), 0)] if remember else []
        table.add_row(_name(row.get("name")), *map(Text, cells))
    notes = _latency_notes(report, rows)
    return Group(table, *(Text(note, style="dim") for note in notes))


def stage_table(report: Mapping[str, object], *, title: str = "Whole path, ms per frame") -> Table:
    """Stages of a frame and their share.

    Args:
        report: `edgeq.benchmark.stages.StageReport.to_json`.
        title: of the table.
    """
    shares = report.get("shares")
    known = shares if isinstance(shares, Mapping) else {}
    total = report.get("total")
    table = _table(title, "stage", "p50", "p90", "p99", "share")
    rows = [*list_of_maps(report.get("stages")), *([total] if isinstance(total, Mapping) else [])]
    for row in rows:
        share = known.get(row.get("name"))
        percent = number(share * 100, 0, " %") if isinstance(share, (int, float)) else ""
        cells = [number(row.get(key)) for key in ("p50_ms", "p90_ms", "p99_ms")]
        table.add_row(_name(row.get("name")), *map(Text, [*cells, percent]))
    return table


def layer_table(
    rows: Sequence[Mapping[str, object]], *, total_ms: float, notes: Sequence[str], title: str
) -> RenderableType:
    """One line per layer with its share of the time, remarks below."""
    table = _table(title, "layer", "op", "kernel", "precision", "ms", "share")
    for row in rows:
        time_ms = row.get("time_ms")
        share = number(time_ms / total_ms * 100, 0, " %") if isinstance(time_ms, (int, float)) else ""
        words = [str(row.get(key, "")) for key in ("op", "kernel", "precision")]
        table.add_row(_name(row.get("name")), *map(Text, [*words, number(time_ms, 3), share]))
    return Group(table, *(Text(note, style="dim") for note in notes))


def gate_table(report: GateReport, *, title: str = "Gate") -> RenderableType:
    """One line per limit, remarks below, and the outcome."""
    table = _table(title, "limit", "allowed", "measured", "outcome")
    remarks: list[Text] = []
    for line in report.lines:
        flag = f"--{line.limit.replace('_', '-')}"
        unit = f" {line.unit}" if line.unit else ""
        yes_no = line.limit == "refuse_throttled"
        bound = "no" if yes_no else f"{line.sense} {line.bound:g}{unit}"
        measured = (
            {None: UNKNOWN, 0.0: "no", 1.0: "yes"}.get(line.measured, UNKNOWN)
            if yes_no
            else number(line.measured, 3)
        )
        outcome = Text(_VERDICT_TEXT[line.verdict], style=_VERDICT_STYLE[line.verdict])
        table.add_row(Text(flag), Text(bound), Text(measured), outcome)
        if line.remark:
            remarks.append(Text(f"  {flag}: {line.remark}"))
    outcome = Text("PASS", style="bold green") if report.passed else Text("FAIL", style="bold red")
    if not report.passed:
        outcome.append(f" ({len(report.failures)} of {len(report.lines)} limits)", style="default")
    return Group(table, *remarks, outcome)


def audit_table(report: AuditReport, *, limit: int = 20) -> RenderableType:
    """How much of the model runs in INT8, and the layers that do not.

    Args:
        report: the audit.
        limit: list at most so many layers.
    """
    compute = report.compute_layers
    summary = Text(
        f"{report.int8_compute_count} of {len(compute)} convolutions and matrix products run in INT8 "
        f"({plain(report.runtime)})"
    )
    if "verified" in report.details:
        summary.append(f"\nverified {plain(report.details['verified'])}", style="yellow")
    remarks = [Text(f"note: {plain(remark)}", style="yellow") for remark in report.remarks]
    other = [layer for layer in compute if layer.precision is not LayerPrecision.INT8]
    if not other:
        return Group(summary, *remarks)
    table = _table("Not in INT8", "layer", "op", "kernel", "why", numeric=False)
    for layer in other[:limit]:
        table.add_row(_name(layer.name), *(_name(text) for text in (layer.op, layer.kernel, layer.reason)))
    rest = (
        [Text(f"and {len(other) - limit} more: --json lists all", style="dim")] if len(other) > limit else []
    )
    return Group(summary, table, *rest, *remarks)


def lint_table(findings: Sequence[LintFinding], *, limit: int = 20) -> RenderableType:
    """What a runtime's linter found, each with its node and what to do.

    Args:
        findings: of an audit, the severest first.
        limit: list at most so many.
    """
    table = _table("Rules broken", "node", "rule", "what comes of it", "why and what to do", numeric=False)
    for entry in findings[:limit]:
        texts = (entry.rule, entry.severity, f"{entry.message}; fix: {entry.fix}")
        table.add_row(_name(entry.node or "the model"), *(_name(text) for text in texts))
    more = len(findings) - limit
    return Group(table, Text(f"and {more} more: --json lists all", style="dim")) if more > 0 else table


def findings_block(findings: Sequence[Mapping[str, object]]) -> RenderableType:
    """Findings as text, each with what to do.

    Args:
        findings: `edgeq.benchmark.findings.Finding.to_json` of each.
    """
    parts: list[RenderableType] = []
    for finding in findings:
        parts.append(Text(f"note: {plain(finding.get('message'))}", style="yellow"))
        parts.append(Text(f"  fix: {plain(finding.get('fix'))}"))
    return Group(*parts)


def _table(title: str, first: str, *others: str, numeric: bool = True) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold", min_width=8)
    for head in others:
        if numeric:
            table.add_column(head, justify="right", no_wrap=True)
        else:
            table.add_column(head, overflow="fold")
    return table


def _name(value: object) -> Text:
    # Text, not str: a name such as "[bold]" is a name, not markup.
    return Text(plain(value), overflow="fold")


def _with_interval(value: object, bounds: object) -> str:
    middle, around = number(value), interval(bounds)
    return middle if UNKNOWN in (middle, around) else f"{middle} ({around})"


def _speedup(entry: Mapping[str, object] | None) -> str:
    wall = entry.get("wall") if entry is not None else None
    if not isinstance(wall, Mapping):
        return ""
    around = interval(wall.get("interval"))
    value = number(wall.get("value"), 2, "x")
    return value if around == UNKNOWN else f"{value} ({around})"


def _latency_notes(report: Mapping[str, object], rows: Sequence[Mapping[str, object]]) -> list[str]:
    if not rows:
        return []
    runs = min((count for row in rows if isinstance(count := row.get("runs"), int)), default=None)
    notes = []
    needed = rows[0].get("samples_needed")
    if runs is not None and isinstance(needed, Mapping):
        missing = [
            f"{name} needs {count}"
            for name, count in needed.items()
            if any(row.get(f"{name}_ms") is None for row in rows)
        ]
        block = report.get("block_runs")
        turns = f"in blocks of {block}, by turns" if isinstance(block, int) and block > 1 else "in turn"
        notes.append(
            f"{runs} runs each, {turns}" + (f"; not quoted: {', '.join(missing)}" if missing else "")
        )
    baselines = {plain(entry.get("baseline")) for entry in list_of_maps(report.get("speedups"))}
    if baselines:
        notes.append(f"speed-up against {', '.join(sorted(baselines))}, wall time, 95 % interval")
    return notes
