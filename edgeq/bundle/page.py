"""A bundle as one HTML file for people: no scripts, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from edgeq.bundle.read import Bundle
from edgeq.report.histogram import latency_histogram
from edgeq.report.jsonio import dumps
from edgeq.report.numbers import UNKNOWN, accuracy_rows, interval, list_of_maps, metrics_in, number, plain
from edgeq.types import COMPUTE_OPS

__all__ = ["bundle_page", "render_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d0d7de; --soft: #57606a;
  --bar: #0969da; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d;
  --soft: #9198a1; --bar: #4493f8; --good: #3fb950; --bad: #f85149; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: right;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child, td.text { text-align: left; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.soft { color: var(--soft); } .pass { color: var(--good); } .fail { color: var(--bad); }
svg { display: block; max-width: 100%; } svg rect { fill: var(--bar); }
svg text { fill: var(--soft); font-size: 11px; } svg line { stroke: var(--soft); }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .5rem; font-size: 12px; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def bundle_page(bundle: Bundle) -> str:
    """The report of a bundle with all its JSON reports.

    Raises:
        BundleError: a report was changed since the bundle was written.
    """
    manifest = bundle.manifest
    facts = {
        "target": manifest.target,
        "runtime": manifest.runtime,
        "task": manifest.task.value,
        "artifact": f"{manifest.artifact} ({bundle.artifact_size_mb:.2f} MB)",
        "input": f"{manifest.input.width_px} x {manifest.input.height_px}, {manifest.input.resize.value}",
        "head": f"{manifest.head.family.value}, {manifest.head.class_count} classes",
        "source": f"{manifest.source.name}, SHA-256 {manifest.source.sha256[:16]}",
        "calibration images": UNKNOWN
        if manifest.calibration is None
        else str(len(manifest.calibration.images)),
        "created": manifest.created_at,
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())),
    }
    reports = {name: data for name in bundle.report_names if (data := bundle.report(name)) is not None}
    return render_page(manifest.name, facts, reports)


def render_page(title: str, facts: Mapping[str, object], reports: Mapping[str, Mapping[str, object]]) -> str:
    """A page from plain data.

    Args:
        title: heading.
        facts: what is said at the top.
        reports: by name; ``gate``, ``accuracy``, ``latency``, ``stages`` and ``audit`` have sections of their
            own, any other is shown as JSON.
    """
    sections = [_facts(facts)]
    for name, data in _ordered(reports):
        make = _SECTIONS.get(_kind(name))
        sections.append(f"<h2>{_text(name.capitalize())}</h2>")
        sections.append(_where(data))
        sections.append(make(data) if make is not None else "")
        sections.append(_raw(data))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _ordered(reports: Mapping[str, Mapping[str, object]]) -> list[tuple[str, Mapping[str, object]]]:
    known = list(_SECTIONS)

    def place(name: str) -> int:
        return known.index(_kind(name)) if _kind(name) in known else len(known)

    return sorted(reports.items(), key=lambda item: (place(item[0]), item[0]))


def _kind(name: str) -> str:
    """The report that it is: one of several devices carries the device's name, too (``latency-pi5``)."""
    return name.partition("-")[0]


def _where(data: Mapping[str, object]) -> str:
    """The device that a report was made on, and whether that was a real one; empty: this machine."""
    device = data.get("device")
    if not isinstance(device, Mapping):
        return ""
    what = f"on {plain(device.get('name'))}" + (f", {plain(device['model'])}" if device.get("model") else "")
    label = f' <b class="fail">{_text(device["emulated"])}</b>' if device.get("emulated") else ""
    said = data.get("parity_summary")
    lines = [said] if isinstance(said, str) else said if isinstance(said, Sequence) else []
    return f"<p>{_text(what)}{label}</p>" + "".join(f"<p>{_text(line)}</p>" for line in lines)


def _text(value: object) -> str:
    return escape(plain(value), quote=True)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells that are HTML already."""
    head = "".join(f"<th>{_text(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{body}</table>"


def _facts(facts: Mapping[str, object]) -> str:
    rows = "".join(
        f'<tr><td>{_text(key)}</td><td class="text">{_text(value)}</td></tr>\n'
        for key, value in facts.items()
    )
    return f"<table>\n{rows}</table>"


def _accuracy(data: Mapping[str, object]) -> str:
    rows = accuracy_rows(data)
    shown = metrics_in(rows)
    cells = [
        [
            _text(row.get("name")),
            *(number(row.get(key), 4) for key in shown),
            number(row.get("drop_points")),
            interval(row.get("drop_interval_points")),
        ]
        for row in rows
    ]
    simulated = f"<p>{_text(data['simulated'])}</p>" if data.get("simulated") else ""
    table = _table(["model", *shown.values(), "drop, points", "95 % interval"], cells) if rows else ""
    return simulated + table


def _latency(data: Mapping[str, object]) -> str:
    rows = list_of_maps(data.get("contestants"))
    percents = ("p50_ms", "p90_ms", "p95_ms", "p99_ms")
    cells = [
        [
            _text(row.get("name")),
            *(number(row.get(key)) for key in percents),
            interval(row.get("p50_interval_ms")),
            number(row.get("cpu_ms")),
            number(row.get("peak_memory_mb"), 0),
            _text(row.get("runs")),
        ]
        for row in rows
    ]
    heads = ["contestant", "p50, ms", "p90", "p95", "p99", "p50, 95 % interval", "CPU, ms", "peak MB", "runs"]
    charts = [latency_histogram(plain(row.get("name")), row.get("wall_ns")) for row in rows]
    return "\n".join([_table(heads, cells), _speedups(data), *charts, _findings(data)]) if rows else ""


def _speedups(data: Mapping[str, object]) -> str:
    rows = []
    for entry in list_of_maps(data.get("speedups")):
        wall, cpu = entry.get("wall"), entry.get("cpu")
        if isinstance(wall, Mapping) and isinstance(cpu, Mapping):
            rows.append(
                [
                    f"{_text(entry.get('name'))} against {_text(entry.get('baseline'))}",
                    number(wall.get("value"), 2, "x"),
                    interval(wall.get("interval")),
                    number(cpu.get("value"), 2, "x"),
                    interval(cpu.get("interval")),
                ]
            )
    return _table(["speed-up", "wall", "95 % interval", "CPU", "95 % interval"], rows) if rows else ""


def _findings(data: Mapping[str, object]) -> str:
    items = [
        f'<li>{_text(entry.get("message"))}<br><span class="soft">{_text(entry.get("fix"))}</span></li>'
        for entry in list_of_maps(data.get("findings"))
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _stages(data: Mapping[str, object]) -> str:
    total = data.get("total")
    rows = [*list_of_maps(data.get("stages")), *([total] if isinstance(total, Mapping) else [])]
    cells = [
        [_text(row.get("name")), *(number(row.get(key)) for key in ("p50_ms", "p90_ms", "p99_ms"))]
        for row in rows
    ]
    return _table(["stage", "p50, ms", "p90", "p99"], cells) if rows else ""


def _audit(data: Mapping[str, object]) -> str:
    layers = [layer for layer in list_of_maps(data.get("layers")) if layer.get("op") in COMPUTE_OPS]
    rows = [
        [_text(layer.get(key)) for key in ("name", "op", "precision", "kernel", "reason")]
        for layer in layers
        if layer.get("precision") != "int8"
    ]
    summary = (
        f"<p>{len(layers) - len(rows)} of {len(layers)} convolutions and matrix products run in INT8.</p>"
    )
    details = data.get("details")
    if isinstance(details, Mapping) and details.get("verified"):
        summary += f"<p>verified {_text(details['verified'])}</p>"
    broken = [
        [_text(entry.get(key)) for key in ("node", "rule", "severity", "message", "fix")]
        for entry in list_of_maps(data.get("findings"))
    ]
    summary += _table(["not in INT8", "op", "precision", "kernel", "why"], rows) if rows else ""
    return summary + (_table(["rule broken at", "rule", "severity", "why", "fix"], broken) if broken else "")


def _gate(data: Mapping[str, object]) -> str:
    rows = []
    for line in list_of_maps(data.get("lines")):
        verdict = plain(line.get("verdict"))
        rows.append(
            [
                _text(line.get("limit")),
                f"{_text(line.get('sense'))} {number(line.get('bound'), 3)} {_text(line.get('unit'))}",
                number(line.get("measured"), 3),
                f'<span class="{"pass" if verdict == "pass" else "fail"}">{_text(verdict)}</span>',
                _text(line.get("remark")),
            ]
        )
    outcome = "pass" if data.get("passed") is True else "fail"
    return f'<p class="{outcome}">{outcome.upper()}</p>' + _table(
        ["limit", "allowed", "measured", "outcome", "remark"], rows
    )


def _raw(data: Mapping[str, object]) -> str:
    return f"<details><summary>JSON</summary><pre>{_text(dumps(_without_samples(data)))}</pre></details>"


def _without_samples(value: object) -> object:
    """The data less long lists of numbers: the raw samples are in the JSON report beside the page."""
    if isinstance(value, Mapping):
        return {key: _without_samples(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > 100 and all(isinstance(entry, (int, float)) for entry in value):
            return f"({len(value)} numbers)"
        return [_without_samples(entry) for entry in value]
    return value


_SECTIONS = {"gate": _gate, "accuracy": _accuracy, "latency": _latency, "stages": _stages, "audit": _audit}
