"""A device made of Python functions, for tests: what it answers is what a test says it answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import IO

from edgeq.device.errors import DeviceError, LinkLost

__all__ = ["FakeLink", "FakeProcess"]

Behaviour = Callable[[str, IO[bytes], IO[bytes]], int]
"""Plays what a script does: takes the script, its stdin and its stdout; returns the exit status."""


class FakeProcess:
    """See `edgeq.device.link.Process`: a thread between two pipes."""

    def __init__(self, behaviour: Behaviour, script: str, stderr: str) -> None:
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(in_write, "wb", buffering=0)
        self.stdout: IO[bytes] = os.fdopen(out_read, "rb")
        self._status: int | None = None
        self._stderr = stderr

        def run() -> None:
            with os.fdopen(in_read, "rb") as stdin, os.fdopen(out_write, "wb", buffering=0) as stdout:
                try:
                    self._status = behaviour(script, stdin, stdout)
                except OSError:
                    self._status = 255

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def stderr_tail(self) -> str:
        """What the test has it say."""
        return self._stderr

    def wait(self, timeout_s: float) -> int | None:
        """The behaviour's exit status; None: it still runs."""
        self._thread.join(timeout_s)
        return self._status

    def end(self) -> None:
        """Close the streams."""
        self.stdin.close()
        self._thread.join(2.0)
        self.stdout.close()


class FakeLink:
    """See `edgeq.device.link.DeviceLink`.

    Args:
        behaviour: plays every script that is started.
        refuse: raised by ``open``, once each; None: no more.
        full: whether nothing can be written.
        stderr: of every process.
    """

    folder = "/edgeq"
    python: str | None = None

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        name: str = "fake",
        refuse: list[DeviceError] | None = None,
        full: bool = False,
        stderr: str = "",
    ) -> None:
        self.name = name
        self.files: dict[str, bytes] = {}
        self.opened = 0
        self._behaviour = behaviour
        self._refuse = refuse or []
        self._full = full
        self._stderr = stderr
        self._processes: list[FakeProcess] = []

    def open(self) -> None:
        """Connected, unless the test refuses."""
        self.opened += 1
        if self._refuse:
            raise self._refuse.pop(0)

    def start(self, script: str) -> FakeProcess:
        """The behaviour in a thread."""
        if not self.opened:
            raise LinkLost("not opened")
        process = FakeProcess(self._behaviour, script, self._stderr)
        self._processes.append(process)
        return process

    def put(self, content: bytes, path: str) -> None:
        """Kept in ``files``."""
        if self._full:
            raise DeviceError(f"{self.name}: {path} cannot be written there: No space left on device")
        self.files[path] = content

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.end()
        self._processes = []
