"""The host's end of the line: requests to an agent, answers checked, silence and death noticed."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.device.agent.wire import BEAT_S, LIST_CHUNK, MAX_LINE_BYTES, SILENCE_S, line_of, message_of
from edgeq.device.answers import Hello, Missing, Probe, parse
from edgeq.device.connect import Interpreter, bring_agent, lost, start_agent
from edgeq.device.errors import DeviceError, LinkLost
from edgeq.device.link import DeviceLink, Process

__all__ = ["AgentError", "Device", "Upload"]

_PIECE_BYTES = 1 << 18
_WINDOW = 32
"""Files on their way that were not confirmed yet: bounded, so that neither side waits for the other."""
_MAX_ANSWERS = 1000

OnPart = Callable[[str, Any], None]
"""Takes the part's kind and its data."""
OnProgress = Callable[[str, int, int], None]
"""Takes stage, done and total."""


class AgentError(DeviceError):
    """The agent refused a request."""

    def __init__(self, code: str, message: str, *, fix: str | None) -> None:
        super().__init__(message, fix=fix)
        self.code = code


@dataclass(frozen=True)
class Upload:
    """A file for the device's store."""

    path: Path
    sha256: str
    size_bytes: int


class Device:
    """A started agent; a context manager that ends it.

    Args:
        link: opened here and closed at the end.
        interpreter: what the agent runs on.
        silence_s: nothing heard for so long is taken for a dead agent.
    """

    def __init__(
        self,
        link: DeviceLink,
        *,
        interpreter: Interpreter = Interpreter.USUAL,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.name = link.name
        self._link = link
        self._interpreter = interpreter
        self._silence_s = silence_s
        self._process: Process | None = None
        self._number = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._lines: queue.Queue[dict[str, Any] | DeviceError | None] = queue.Queue(_MAX_ANSWERS)
        self._heard_s = time.monotonic()
        self.probe: Probe | None = None
        self.hello: Hello | None = None
        self.reached = False
        """Whether there was a connection at least once."""
        self.sent_bytes = 0

    def __enter__(self) -> Device:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Connect, bring the agent, start it.

        Raises:
            DeviceError: the device refuses or lacks something.
            LinkLost: it cannot be reached just now.
        """
        self.close()
        try:
            self._link.open()
            self.reached = True
            self.probe = bring_agent(self._link, interpreter=self._interpreter)
            self._process, self.hello = start_agent(self._link, self.probe)
        except BaseException:
            self._link.close()
            raise
        self._stop = threading.Event()
        self._lines = queue.Queue(_MAX_ANSWERS)
        self._heard_s = time.monotonic()
        for job in (self._read, self._beat):
            arguments = (self._process, self._stop, self._lines)
            threading.Thread(target=job, args=arguments, daemon=True, name="edgeq-device").start()

    def close(self) -> None:
        """End the agent and the connection; nothing is left running there."""
        self._stop.set()
        if self._process is not None:
            process, self._process = self._process, None
            process.end()
        # Whoever waits for an answer in another thread is told that none comes.
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._link.close()

    def request(
        self,
        operation: str,
        data: Mapping[str, Any],
        *,
        on_part: OnPart | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """The result of one request.

        Raises:
            AgentError: the agent refused it.
            DeviceError: the answer makes no sense.
            LinkLost: the agent or the connection is gone.
        """
        number = self._next()
        self._write(line_of({**data, "op": operation, "id": number}))
        while True:
            message = self._message(number)
            kind = message.get("kind")
            if kind == "result":
                return message.get("data")
            if kind == "part":
                if on_part is not None:
                    on_part(str(message.get("what")), message.get("data"))
            elif kind == "progress":
                self._tell(message, on_progress)
            else:
                raise self._error(message)

    def upload(self, files: Sequence[Upload], *, on_progress: OnProgress | None = None) -> None:
        """Bring files to the device's store; those that are there are not sent again, cut ones gone on with.

        Raises:
            AgentError: no room there.
            DeviceError: a file changed here meanwhile.
            LinkLost: the agent or the connection is gone.
        """
        unique = list({file.sha256: file for file in files}.values())
        wanted: list[tuple[Upload, int]] = []
        for start in range(0, len(unique), LIST_CHUNK):
            part = unique[start : start + LIST_CHUNK]
            answer = self.request("have", {"files": [(file.sha256, file.size_bytes) for file in part]})
            for position, there in parse(Missing, answer, self.name).missing:
                if position >= len(part) or there > part[position].size_bytes:
                    raise DeviceError(f"{self.name}: asks for a file that was not offered")
                wanted.append((part[position], there))
        waiting: list[int] = []
        for done, (file, there) in enumerate(wanted):
            if on_progress is not None:
                on_progress("send", done, len(wanted))
            waiting.append(self._put(file, there))
            if len(waiting) >= _WINDOW:
                self._confirm(waiting.pop(0))
        for number in waiting:
            self._confirm(number)

    def _put(self, file: Upload, offset: int) -> int:
        number = self._next()
        header = {"op": "put", "id": number, "sha256": file.sha256, "size": file.size_bytes, "offset": offset}
        with file.path.open("rb") as source:
            source.seek(offset)
            self._write(line_of(header), _pieces(source, file.size_bytes - offset, file, self.name))
        return number

    def _confirm(self, number: int) -> None:
        message = self._message(number)
        if message.get("kind") != "result":
            raise self._error(message)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _write(self, line: bytes, more: Iterable[bytes] = ()) -> None:
        if self._process is None:
            raise LinkLost(f"{self.name}: not connected")
        try:
            with self._lock:
                self._process.stdin.write(line)
                for piece in more:
                    self._process.stdin.write(piece)
                    self.sent_bytes += len(piece)
                self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._gone() from error

    def _message(self, number: int) -> dict[str, Any]:
        """The next message, which has to belong to that request."""
        while True:
            left_s = self._heard_s + self._silence_s - time.monotonic()
            try:
                message = self._lines.get(timeout=max(0.01, left_s))
            except queue.Empty:
                if time.monotonic() - self._heard_s >= self._silence_s:
                    raise LinkLost(
                        f"{self.name}: nothing was heard of it for {self._silence_s:.0f} s",
                        fix="check that it is on and not overloaded, then try again",
                    ) from None
                continue
            if message is None:
                raise self._gone()
            if isinstance(message, DeviceError):
                raise message
            if message.get("id") != number:
                raise self._garbage(f"an answer to {str(message.get('id'))[:20]} instead of {number}")
            return message

    def _read(
        self, process: Process, stop: threading.Event, lines: queue.Queue[dict[str, Any] | DeviceError | None]
    ) -> None:
        """The reading thread; beats end here."""
        try:
            while not stop.is_set():
                line = process.stdout.readline(MAX_LINE_BYTES + 1)
                if not line.endswith(b"\n"):
                    break
                self._heard_s = time.monotonic()
                message = message_of(line)
                if message.get("kind") != "beat":
                    _hand_over(lines, message, stop)
            if not stop.is_set():
                # Half a line is what a cut leaves; more than a line may have is not an agent's.
                endless = len(line) > MAX_LINE_BYTES
                _hand_over(lines, self._garbage("a line without end") if endless else None, stop)
        except (OSError, ValueError) as error:
            if not stop.is_set():
                _hand_over(lines, self._garbage(str(error)), stop)

    def _beat(self, process: Process, stop: threading.Event, lines: object) -> None:
        """The beating thread: the agent ends itself when it hears nothing."""
        while not stop.wait(BEAT_S * 3):
            with contextlib.suppress(OSError, ValueError), self._lock:
                process.stdin.write(line_of({"op": "beat"}))
                process.stdin.flush()

    def _gone(self) -> DeviceError:
        if self._process is None:
            return LinkLost(f"{self.name}: not connected")
        return lost(self.name, self._process.wait(3.0), self._process.stderr_tail())

    def _garbage(self, what: str) -> DeviceError:
        return DeviceError(
            f"{self.name}: garbage where the agent should speak ({what[:200]})",
            fix="nothing of this run is used; try again, and see whether something else writes there",
        )

    def _error(self, message: Mapping[str, Any]) -> DeviceError:
        code, text, fix = (message.get(key) for key in ("code", "message", "fix"))
        if message.get("kind") != "error" or not isinstance(code, str) or not isinstance(text, str):
            return self._garbage(f"a message of kind {str(message.get('kind'))[:40]!r}")
        if code == "unavailable":
            fix = f"edgeq device setup {self.name}, or see 'edgeq doctor --on {self.name}'"
        shown = text if code != "internal" else f"the agent failed: {text[-1500:]}"
        return AgentError(code, f"{self.name}: {shown}", fix=fix if isinstance(fix, str) else None)

    def _tell(self, message: Mapping[str, Any], on_progress: OnProgress | None) -> None:
        stage, done, total = (message.get(key) for key in ("stage", "done", "total"))
        if on_progress is not None and isinstance(done, int) and isinstance(total, int):
            on_progress(str(stage)[:80], done, max(1, total))


def _hand_over(lines: queue.Queue[Any], item: Any, stop: threading.Event) -> None:
    """Put, but not for ever where nobody takes any more."""
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            lines.put(item, timeout=1.0)
            return


def _pieces(source: Any, left: int, file: Upload, name: str) -> Iterable[bytes]:
    while left:
        piece = source.read(min(_PIECE_BYTES, left))
        if not piece:
            raise DeviceError(f"{name}: {file.path} became shorter while it was sent")
        left -= len(piece)
        yield piece
