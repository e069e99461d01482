"""Work that survives a dropped connection: bounded tries, each going on where the last one stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from edgeq.device.client import AgentError, Device
from edgeq.device.connect import Interpreter
from edgeq.device.errors import LinkLost
from edgeq.device.link import DeviceLink

__all__ = ["Worker"]

_PAUSES_S = (1.0, 3.0, 8.0)
"""Before the second, third and last try in a row that brought nothing new."""
_Result = TypeVar("_Result")


class Worker:
    """A device to give work to; a context manager that ends the agent.

    Args:
        link: the way to it.
        interpreter: what the agent runs on.
        note: told about every reconnection.
        pauses_s: between tries; fewer and shorter ones in tests.
    """

    def __init__(
        self,
        link: DeviceLink,
        *,
        interpreter: Interpreter = Interpreter.USUAL,
        note: Callable[[str], None] = lambda text: None,
        pauses_s: tuple[float, ...] = _PAUSES_S,
    ) -> None:
        self.device = Device(link, interpreter=interpreter)
        self.reconnections = 0
        self._note = note
        self._pauses_s = pauses_s
        self._opened = False

    def __enter__(self) -> Worker:
        try:
            self.do(lambda device: None)
        except BaseException:
            self.device.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.device.close()

    @property
    def name(self) -> str:
        """What the user calls the device."""
        return self.device.name

    def do(self, job: Callable[[Device], _Result], *, progress: Callable[[], int] = lambda: 0) -> _Result:
        """What the job returns; it is called again when the connection dropped or the device lost a file.

        Args:
            job: goes on where it stopped when it is called again.
            progress: grows whenever something was got that is not lost again.

        Raises:
            DeviceError: the device refuses, or too many tries in a row brought nothing.
        """
        failures, before = 0, progress()
        while True:
            try:
                if not self._opened:
                    self.device.open()
                    self._opened = True
                return job(self.device)
            except (LinkLost, AgentError) as error:
                # A device that never answered is a wrong name or switched off: said at once.
                if not self.device.reached or (isinstance(error, AgentError) and error.code != "blob-lost"):
                    raise
                self._opened = False
                if progress() > before:
                    failures, before = 0, progress()
                if failures >= len(self._pauses_s):
                    raise
                pause_s = self._pauses_s[failures]
                failures += 1
                self.reconnections += 1
                self._note(
                    f"{error.message}; trying again in {pause_s:g} s ({failures} of {len(self._pauses_s)})"
                )
                time.sleep(pause_s)
