"""``--on`` and what goes with it: the same for every command that can run on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgeq.errors import EdgeqError, UnavailableError

if TYPE_CHECKING:
    from edgeq.cli.console import Console
    from edgeq.device.fleet import DeviceEntry

__all__ = ["On", "each_device", "emulated_label", "error_json"]

On = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        metavar="DEVICE",
        help="Run there: local, an ssh alias, user@host, ssh://user@host:port, or a .toml list; repeatable.",
    ),
]
_Result = TypeVar("_Result")


def each_device(
    on: Sequence[str],
    job: Callable[[DeviceEntry], _Result],
    console: Console,
    *,
    show: Callable[[DeviceEntry, _Result], None],
    document: Callable[[DeviceEntry, _Result], Any],
) -> int:
    """Do the job on all devices, show each result or error, emit one document; the exit code.

    One device gives its own document, or raises its error; several give ``{"devices": [...]}``.

    Raises:
        EdgeqError: of the only device.
        InputError: what ``--on`` says is no device.
    """
    from edgeq.device.fleet import devices_named, on_all

    entries = devices_named(on)
    outcomes = on_all(entries, job)
    if len(outcomes) == 1:
        if outcomes[0].error is not None:
            raise outcomes[0].error
        assert outcomes[0].result is not None
        show(entries[0], outcomes[0].result)
        console.emit({**document(entries[0], outcomes[0].result), "warnings": console.warnings})
        return 0
    documents = []
    for outcome in outcomes:
        if outcome.error is not None or outcome.result is None:
            assert outcome.error is not None
            console.warn(f"{outcome.entry.name} failed: {outcome.error}")
            documents.append({"device": outcome.entry.name, **error_json(outcome.error)})
        else:
            console.show(f"{outcome.entry.name}:")
            show(outcome.entry, outcome.result)
            documents.append(
                {"device": outcome.entry.name, "report": document(outcome.entry, outcome.result)}
            )
    console.emit({"devices": documents, "warnings": console.warnings})
    return UnavailableError.exit_code if any(outcome.error is not None for outcome in outcomes) else 0


def error_json(error: EdgeqError) -> dict[str, Any]:
    """An error as in the document of a command that failed."""
    return {"error": error.message, "fix": error.fix, "exit_code": error.exit_code}


def emulated_label(emulated: str | None) -> str | None:
    """What every report of an emulated board says; None for a real one."""
    return None if emulated is None else f"emulated: correctness only, not speed ({emulated})"
