"""``edgeq audit``: which layers really run in INT8, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.evaluate import refuse_remote
from edgeq.cli.flags import OutputFlags, command

if TYPE_CHECKING:
    from edgeq.cli.subject import Subject
    from edgeq.runtimes.base import AuditReport

__all__ = ["audit", "audit_json", "audit_of", "disagreements", "reasons_of"]

_COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@command
def audit(
    *,
    subject: Annotated[
        Path, typer.Argument(metavar="BUNDLE|MODEL", help="A bundle's folder, or an .onnx or .tflite file.")
    ],
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="As it will be run.")] = 1,
    show_all: Annotated[bool, typer.Option("--all", help="List every layer that is not in INT8.")] = False,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep reports/audit.json in the bundle.")
    ] = True,
    on: Annotated[str | None, typer.Option("--on", metavar="LINK", help="Device to run on.")] = None,
    output: OutputFlags,
) -> None:
    """Which layers really run in INT8, and why not the others."""
    from edgeq.cli.console import Console
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.subject import open_subject
    from edgeq.report.terminal import audit_table

    refuse_remote(on)
    console = Console(output)
    with open_subject(subject, console=console) as judged:
        report = audit_of(judged, threads=threads)
        for text in disagreements(report, _layers(judged)):
            console.warn(text)
        console.show(audit_table(report, limit=len(report.layers) if show_all else 20))
        if save:
            keep_reports(judged.bundle, {"audit": audit_json(report)}, console)
        console.emit({**audit_json(report), "warnings": console.warnings})


def audit_of(subject: Subject, *, threads: int) -> AuditReport:
    """The audit of a subject, with the reasons of its bundle's plan."""
    from edgeq.runtimes.base import SessionOptions

    reasons = reasons_of(_layers(subject))
    return subject.runtime.audit(subject.artifact, options=SessionOptions(threads=threads), reasons=reasons)


def audit_json(report: AuditReport) -> dict[str, Any]:
    """The report ``audit``."""
    from edgeq.report.jsonio import to_jsonable

    counts = {
        "compute_layer_count": len(report.compute_layers),
        "int8_compute_count": report.int8_compute_count,
    }
    return {**to_jsonable(report), **counts}


def reasons_of(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Node name -> why the plan keeps it in float."""
    return {name: str(layer["reason"]) for name, layer in layers.items() if layer.get("precision") == "float"}


def disagreements(report: AuditReport, layers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Layers that the runtime runs in another precision than the plan says, in words."""
    from edgeq.runtimes.base import LayerPrecision

    found = {layer.name: layer for layer in report.compute_layers}
    texts = []
    for wanted, real, says in (
        ("int8", LayerPrecision.FLOAT, f"INT8 in the plan, but {report.runtime} runs them in float"),
        ("float", LayerPrecision.INT8, f"float in the plan, but {report.runtime} runs them in INT8"),
    ):
        names = [
            name
            for name, layer in layers.items()
            if layer.get("precision") == wanted
            and layer.get("op_type") in _COMPUTE
            and name in found
            and found[name].precision is real
        ]
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            why = next((found[name].reason for name in names if found[name].reason), "")
            texts.append(
                f"{len(names)} layers are {says}: {', '.join(names[:5])}{more}" + (f" ({why})" if why else "")
            )
    return texts


def _layers(subject: Subject) -> dict[str, Mapping[str, Any]]:
    """The layers of a bundle's quantization report by node name; empty where there is none."""
    from edgeq.report.numbers import list_of_maps

    report = None if subject.bundle is None else subject.bundle.report("quantization")
    entries = list_of_maps((report or {}).get("layers"))
    return {str(entry.get("node")): entry for entry in entries}
