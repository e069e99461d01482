"""``edgeq targets``: the device profiles that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import OutputFlags, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgeq.targets import Target

__all__ = ["targets"]


@command
def targets(
    *,
    name: Annotated[str | None, typer.Argument(metavar="[NAME|FILE]", help="One target, in full.")] = None,
    output: OutputFlags,
) -> None:
    """The known targets, or one of them in full."""
    from edgeq.cli.console import Console
    from edgeq.targets import list_targets, load_target

    console = Console(output)
    if name is not None:
        target = load_target(name)
        console.show(*_details(target))
        console.emit(_to_json(target))
        return
    found = list_targets()
    console.show(_table(found))
    console.show("one in full: edgeq targets NAME; your own TOML file works in place of a name")
    console.emit({"targets": [_to_json(target) for target in found]})


def _to_json(target: Target) -> dict[str, Any]:
    from edgeq.report.jsonio import to_jsonable

    data: dict[str, Any] = to_jsonable(target)
    return data


def _table(found: tuple[Target, ...]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("target", "runtime", "for"):
        table.add_column(head, overflow="fold")
    for target in found:
        table.add_row(Text(target.name), Text(target.runtime), Text(target.title))
    return table


def _details(target: Target) -> list[str]:
    from dataclasses import asdict

    limits = {key: value for key, value in asdict(target.budget).items() if value}
    hardware = [] if target.cores is None else [f"{target.cores} cores"]
    hardware += [] if target.memory_mb is None else [f"{target.memory_mb} MiB of memory or more"]
    hardware += [] if target.system is None else [target.system]
    lines = [
        f"{target.name}: {target.title}",
        f"runtime {target.runtime}, {target.architecture}, {target.threads} threads, "
        f"activations {target.activation_dtype.value}, float is {target.default_float}",
        *([f"hardware: {', '.join(hardware)}"] if hardware else []),
        f"budget: {', '.join(f'{key} {value:g}' for key, value in limits.items()) or 'none'}",
    ]
    lines += [f"needs {' or '.join(entry.any_of)}: {entry.why}" for entry in target.cpu_features]
    if target.wheels is not None:
        wheels = target.wheels
        lines.append(f"wheels: {' or '.join(wheels.platforms)}, Python {' or '.join(wheels.python)}")
    lines += [f"- {note.text}\n  ({note.source})" for note in target.notes]
    return [*lines, f"from {target.origin}"]
