"""The agent's two ends of the line: what comes from the host, and what goes to it."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from edgeq.device.agent.wire import LIST_CHUNK, MAX_LINE_BYTES, SILENCE_S, line_of

__all__ = ["Answer", "Channel", "Source", "end_everything", "take_stdout"]

_PIECE_BYTES = 1 << 18


def take_stdout() -> int:
    """The descriptor that leads to the host; fd 1 goes to stderr from now on.

    A runtime's native code may print: on stdout that would be garbage between the messages.
    """
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return own


def end_everything(status: int) -> NoReturn:
    """End this process and its children at once: the host is gone, nothing may be left running."""
    if os.getpgrp() == os.getpid():
        # Not to be refused, and from any thread; it ends this process too.
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(status)


class Channel:
    """Lines to the host, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Write one line; ends the process where nobody listens any more."""
        rest = memoryview(line_of(message))
        with self._lock:
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                end_everything(0)


class Source:
    """Lines and raw bytes from the host."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held = b""

    def line(self) -> bytes:
        """The next line without its end; empty: the host closed the stream.

        Raises:
            ValueError: a line over the limit.
        """
        while b"\n" not in self._held:
            if len(self._held) > MAX_LINE_BYTES:
                raise ValueError("a line over the limit")
            more = self._more()
            if not more:
                return b""
            self._held += more
        line, _, self._held = self._held.partition(b"\n")
        return line

    def raw(self, count: int) -> Iterator[bytes]:
        """Exactly ``count`` bytes in pieces; ends the process where the stream ends before."""
        while count:
            piece = self._held[:count] or self._more()[:_PIECE_BYTES]
            if not piece:
                end_everything(0)
            if self._held:
                self._held = self._held[len(piece) :]
            elif len(piece) > count:
                piece, self._held = piece[:count], piece[count:]
            count -= len(piece)
            yield piece

    def _more(self) -> bytes:
        """What has come; the host sends beats, so silence means that it is gone."""
        ready, _, _ = select.select([self._descriptor], [], [], SILENCE_S)
        if not ready:
            end_everything(0)
        return os.read(self._descriptor, _PIECE_BYTES)


class Answer:
    """The answer to one request."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number

    def part(self, what: str, data: dict[str, Any]) -> None:
        """Some of the answer."""
        self._channel.send({"id": self._number, "kind": "part", "what": what, "data": data})

    def series(self, name: str, values: list[int]) -> None:
        """A long list of integers, in lines of bounded length."""
        for start in range(0, len(values), LIST_CHUNK):
            self.part("series", {"name": name, "values": values[start : start + LIST_CHUNK]})

    def progress(self, stage: str, done: int, total: int) -> None:
        """How far it is."""
        self._channel.send(
            {"id": self._number, "kind": "progress", "stage": stage, "done": done, "total": total}
        )

    def result(self, data: dict[str, Any]) -> None:
        """The end of the answer."""
        self._channel.send({"id": self._number, "kind": "result", "data": data})

    def error(self, code: str, message: str, fix: str | None) -> None:
        """The other end."""
        self._channel.send(
            {"id": self._number, "kind": "error", "code": code, "message": message[:4000], "fix": fix}
        )
