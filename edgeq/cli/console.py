"""How a command talks: the result on stdout, everything else on stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgeq.cli.flags import OutputFlags

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Console"]

StageProgress = Callable[[str, int, int], None]


class Console:
    """Result, notes and progress of one command."""

    def __init__(self, flags: OutputFlags) -> None:
        self._json = flags.json
        self._quiet = flags.quiet
        self._warnings: list[str] = []
        self._bar = threading.Lock()

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings so far."""
        return tuple(self._warnings)

    def note(self, text: str) -> None:
        """Something that the user may want to know."""
        if not self._quiet:
            self._say(text)

    def warn(self, text: str) -> None:
        """Something that the user has to know; said also with --quiet."""
        self._warnings.append(text)
        self._say(f"warning: {text}")

    def warn_of_session(self, name: str, details: Mapping[str, str]) -> None:
        """What a session wants its user to know before the results, where it wants that."""
        if warning := details.get("warning"):
            self.warn(f"{name}: {warning}")

    def show(self, *parts: RenderableType) -> None:
        """Part of the result for people."""
        if not self._json:
            from edgeq.report.terminal import show

            show(*parts)

    def emit(self, document: Any) -> None:
        """The result for programs: the one JSON document."""
        if self._json:
            from edgeq.report.jsonio import dumps

            sys.stdout.write(dumps(document))
            sys.stdout.flush()

    @contextmanager
    def progress(self) -> Iterator[StageProgress]:
        """What reports (stage, done, total): a bar on a terminal, silence elsewhere."""
        # One bar at a time: of several devices at work the first shows its progress.
        if self._quiet or not sys.stderr.isatty() or not self._bar.acquire(blocking=False):
            yield lambda stage, done, total: None
            return
        try:
            with self._bars() as advance:
                yield advance
        finally:
            self._bar.release()

    @contextmanager
    def _bars(self) -> Iterator[StageProgress]:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def advance(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done, total=total)

            yield advance

    def _say(self, text: str) -> None:
        from edgeq.report.numbers import plain

        sys.stderr.write(plain(text) + "\n")
        sys.stderr.flush()
