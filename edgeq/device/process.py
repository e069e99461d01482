"""A child process on this machine as a `Process`: the device's, or the ssh client's that leads to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from edgeq.device.errors import DeviceError

__all__ = ["ChildProcess", "check_put", "quoted_path"]

_TAIL_BYTES = 16 << 10
_PUT_S = 300.0


class ChildProcess:
    """See `edgeq.device.link.Process`."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        try:
            # A group of its own: Ctrl-C in the terminal is for edgeq, which then ends this one in order.
            self._native = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True, env=None if env is None else dict(env),
            )  # fmt: skip
        except OSError as error:
            raise DeviceError(f"{command[0]} cannot be started: {error.strerror or error}") from error
        self._tail = b""
        self._reader = threading.Thread(target=self._read_stderr, name="edgeq-stderr", daemon=True)
        self._reader.start()

    @property
    def stdin(self) -> IO[bytes]:
        """What it reads."""
        assert self._native.stdin is not None
        return self._native.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """What it writes."""
        assert self._native.stdout is not None
        return self._native.stdout

    def stderr_tail(self) -> str:
        """The end of what it said on stderr so far."""
        if self._native.poll() is not None:
            self._reader.join(timeout=1.0)
        return self._tail.decode(errors="replace").strip()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status; None: it still runs."""
        try:
            return self._native.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Close its streams, give it a moment, then kill its group."""
        with contextlib.suppress(OSError, ValueError):
            self.stdin.close()
        if self.wait(2.0) is None:
            self._signal(signal.SIGTERM)
            if self.wait(2.0) is None:
                self._signal(signal.SIGKILL)
                self.wait(5.0)
        # What it left in its group, a process that measures memory for example.
        self._signal(signal.SIGKILL)
        with contextlib.suppress(OSError, ValueError):
            self.stdout.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._native.pid, number)

    def _read_stderr(self) -> None:
        assert self._native.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(self._native.stderr.fileno(), 4096):
                self._tail = (self._tail + piece)[-_TAIL_BYTES:]


def quoted_path(path: str) -> str:
    """A path for the shell on the device, ``~/`` being its home."""
    if path.startswith("~/"):
        return '"$HOME"/' + _quoted(path[2:])
    return _quoted(path)


def check_put(process: ChildProcess, content: bytes, path: str, name: str) -> None:
    """Feed a file to the process that writes it, and see that it did.

    Raises:
        DeviceError: it did not.
    """
    # The ssh client may end before it has taken everything: its status tells why.
    with contextlib.suppress(OSError):
        process.stdin.write(content)
    with contextlib.suppress(OSError):
        process.stdin.close()
    status = process.wait(_PUT_S)
    said = process.stderr_tail()
    process.end()
    if status == 0:
        return
    last = (said.splitlines() or [f"status {status}"])[-1]
    fix = None
    if "No space left" in said or "quota" in said:
        fix = "free some space on the device; 'edgeq device clean' removes what edgeq keeps there"
    raise DeviceError(f"{name}: {path} cannot be written there: {last}", fix=fix)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"
