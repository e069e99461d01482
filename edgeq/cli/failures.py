"""What becomes of an error: a message, a fix, an exit code; a traceback for bugs only."""

from __future__ import annotations

import errno
import json
import sys
import traceback
from dataclasses import dataclass

import typer

from edgeq.cli.flags import Interrupted
from edgeq.errors import EdgeqError, OutputError

__all__ = ["Failure", "failure_of", "report"]

USAGE_ERROR = typer.BadParameter.__mro__[1]
"""typer's UsageError, which older versions take from click and newer ones bring along."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_INTERNAL, _USAGE, _INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Failure:
    """An error as the user meets it."""

    message: str
    fix: str | None
    exit_code: int
    bug: bool = False


def failure_of(error: BaseException) -> Failure:
    """Message, fix and exit code of any error."""
    if isinstance(error, EdgeqError):
        return Failure(error.message, error.fix, error.exit_code)
    if isinstance(error, (Interrupted, KeyboardInterrupt, typer.Abort)):
        return Failure(
            "interrupted; nothing half-made was left behind",
            "run the same command again: statistics that were complete are taken from the cache",
            _INTERRUPTED,
        )
    if isinstance(error, USAGE_ERROR):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "edgeq"
        return Failure(_usage_message(error), f"{path} --help", _USAGE)
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" while writing {error.filename}" if error.filename else ""
        return Failure(
            f"the disk is full{where}",
            "free some space, or set TMPDIR and -o to another disk",
            OutputError.exit_code,
        )
    return Failure(
        f"{type(error).__name__}: {error}",
        "this is a bug in edgeq; please report it with this traceback",
        _INTERNAL,
        bug=True,
    )


def _usage_message(error: BaseException) -> str:
    tell = getattr(error, "format_message", None)
    text = str(tell() if callable(tell) else error).strip().rstrip(".")
    text = text[:1].lower() + text[1:]
    # Of a flag that is missing: what it takes.
    told = getattr(getattr(error, "param", None), "help", None)
    return f"{text} ({told.rstrip('.')})" if told and text.startswith("missing") else text


def report(error: BaseException, *, as_json: bool) -> int:
    """Say it on stderr, with --json also on stdout; returns the exit code."""
    from edgeq.report.numbers import plain

    failure = failure_of(error)
    if failure.bug:
        traceback.print_exception(error)
    lines = [f"error: {plain(failure.message)}"]
    lines += [f"fix: {plain(failure.fix)}"] if failure.fix else []
    sys.stderr.write("\n".join(lines) + "\n")
    if as_json:
        document = {"error": failure.message, "fix": failure.fix, "exit_code": failure.exit_code}
        sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return failure.exit_code
