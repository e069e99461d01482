"""``edgeq audit``: which layers really run in INT8, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import OutputFlags, RuntimeOptions, SubjectPath, Threads, command
from edgeq.cli.onflags import On

if TYPE_CHECKING:
    from edgeq.cli.console import Console
    from edgeq.cli.remote import DeviceSide
    from edgeq.cli.subject import Subject
    from edgeq.runtimes.base import AuditReport
    from edgeq.targets import Target

__all__ = ["audit", "audit_at", "audit_json", "audit_of", "disagreements", "reasons_of"]


@command
def audit(
    *,
    subject: SubjectPath,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="NAME|FILE", help="Whose runtime to ask, for a plain model."),
    ] = None,
    threads: Threads = 1,
    show_all: Annotated[bool, typer.Option("--all", help="List every layer that is not in INT8.")] = False,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep reports/audit.json in the bundle.")
    ] = True,
    runtime_option: RuntimeOptions = None,
    on: On = None,
    output: OutputFlags,
) -> int:
    """Which layers really run in INT8, and why not the others."""
    from edgeq.cli.console import Console
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.opening import open_subject
    from edgeq.report.terminal import audit_table, lint_table
    from edgeq.targets import load_target

    console = Console(output)
    profile = None if target is None else load_target(target)
    if on:
        with open_subject(subject, console=console, installed=False, options=runtime_option) as judged:
            return _on_devices(on, judged, threads, console, show_all=show_all, save=save)
    with _opened(subject, profile, console, runtime_option or ()) as judged:
        report = audit_of(judged, threads=threads, target=profile)
        for text in disagreements(report, _layers(judged)):
            console.warn(text)
        console.show(audit_table(report, limit=len(report.layers) if show_all else 20))
        if report.findings:
            console.show(lint_table(report.findings, limit=len(report.findings) if show_all else 20))
        if save:
            keep_reports(judged.bundle, {"audit": audit_json(report)}, console)
        console.emit({**audit_json(report), "warnings": console.warnings})
    return 0


def _on_devices(
    on: list[str], subject: Subject, threads: int, console: Console, *, show_all: bool, save: bool
) -> int:
    """The same on devices."""
    from edgeq.cli.keeping import keep_reports
    from edgeq.cli.onflags import each_device
    from edgeq.cli.remote import at_work
    from edgeq.device.fleet import DeviceEntry, devices_named
    from edgeq.report.terminal import audit_table

    many = len(devices_named(on)) > 1

    def job(entry: DeviceEntry) -> tuple[AuditReport, dict[str, Any], str]:
        with at_work(entry, [subject.runtime.name], console, need=[subject.runtime.name]) as side:
            return audit_at(side, subject, threads=threads), side.to_json(), side.line()

    def document(entry: DeviceEntry, result: tuple[AuditReport, dict[str, Any], str]) -> dict[str, Any]:
        return {**audit_json(result[0]), "device": result[1]}

    def show(entry: DeviceEntry, result: tuple[AuditReport, dict[str, Any], str]) -> None:
        report, _, line = result
        for text in disagreements(report, _layers(subject)):
            console.warn(text)
        console.show(line, audit_table(report, limit=len(report.layers) if show_all else 20))
        if save:
            name = f"audit-{entry.slug}" if many else "audit"
            keep_reports(subject.bundle, {name: document(entry, result)}, console)

    return each_device(on, job, console, show=show, document=document)


def audit_at(side: DeviceSide, subject: Subject, *, threads: int) -> AuditReport:
    """The audit on a device, with the reasons of the bundle's plan."""
    from edgeq.cli.remote import audit_on

    return audit_on(side, subject, threads=threads, reasons=reasons_of(_layers(subject)))


def audit_of(subject: Subject, *, threads: int, target: Target | None = None) -> AuditReport:
    """The audit of a subject, with the reasons of its bundle's plan.

    Args:
        subject: a bundle or a plain model.
        threads: as it will be run.
        target: what it is for; None: the bundle's, where that is still known.
    """
    profile = target or _target_of(subject)
    options = replace(
        subject.options,
        threads=threads,
        compute_capability=None if profile is None else profile.compute_capability,
    )
    return subject.runtime.audit(subject.artifact, options=options, reasons=reasons_of(_layers(subject)))


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
    from edgeq.types import COMPUTE_OPS

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
            and layer.get("op_type") in COMPUTE_OPS
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


@contextmanager
def _opened(path: Path, target: Target | None, console: Console, options: Sequence[str]) -> Iterator[Subject]:
    """The subject; a plain model with a target goes to that target's runtime, which need not run here."""
    from edgeq.cli.opening import open_subject
    from edgeq.cli.subject import Subject
    from edgeq.errors import InputError, ModelError
    from edgeq.files import size_mb
    from edgeq.runtimes import load_runtime
    from edgeq.runtimes.options import chosen_options

    if target is None or path.is_dir():
        with open_subject(path, console=console, options=options) as judged:
            if target is not None and judged.runtime.name != target.runtime:
                raise InputError(
                    f"{path} is a bundle for {judged.runtime.name}, {target.name} has {target.runtime}",
                    fix="leave --target out",
                )
            yield judged
        return
    if not path.is_file():
        raise ModelError(f"there is no bundle or model at {path}", fix="check the path")
    runtime = load_runtime(target.runtime)
    yield Subject(
        name=path.stem,
        artifact=path,
        size_mb=size_mb(path),
        runtime=runtime,
        options=chosen_options(runtime, options),
        bundle=None,
        reference=None,
        float_artifact=None,
        specs=None,
    )


def _target_of(subject: Subject) -> Target | None:
    """The shipped target of a bundle; None: a plain model, or one made for a profile of the user's own."""
    from edgeq.errors import EdgeqError
    from edgeq.targets import load_target

    if subject.bundle is None:
        return None
    try:
        return load_target(subject.bundle.manifest.target)
    except EdgeqError:
        return None


def _layers(subject: Subject) -> dict[str, Mapping[str, Any]]:
    """The layers of a bundle's quantization report by node name; empty where there is none."""
    from edgeq.report.numbers import list_of_maps

    report = None if subject.bundle is None else subject.bundle.report("quantization")
    entries = list_of_maps((report or {}).get("layers"))
    return {str(entry.get("node")): entry for entry in entries}
