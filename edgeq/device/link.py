"""The seam to a device: one way to run something there, and one to bring a small file."""

from __future__ import annotations

from typing import IO, Protocol

__all__ = ["DeviceLink", "Process"]


class Process(Protocol):
    """Something that runs on the device, its streams here."""

    @property
    def stdin(self) -> IO[bytes]:
        """What it reads."""
        ...

    @property
    def stdout(self) -> IO[bytes]:
        """What it writes."""
        ...

    def stderr_tail(self) -> str:
        """The end of what it said on stderr so far."""
        ...

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status; None: it still runs."""
        ...

    def end(self) -> None:
        """Close its streams and see to it that nothing of it is left here."""
        ...


class DeviceLink(Protocol):
    """A way to a device."""

    @property
    def name(self) -> str:
        """What the user calls the device."""
        ...

    @property
    def folder(self) -> str:
        """Where edgeq keeps its files there: an absolute path, or one that begins with ``~/``."""
        ...

    @property
    def python(self) -> str | None:
        """The interpreter to use; None: the one of edgeq's environment there, else the system's."""
        ...

    def open(self) -> None:
        """Make the connection; calling it again makes a new one.

        Raises:
            DeviceError: the device refuses, or is not to be trusted: trying again would not help.
            LinkLost: it cannot be reached just now.
        """
        ...

    def start(self, script: str) -> Process:
        """Run a script of the POSIX shell.

        Raises:
            LinkLost: there is no connection any more.
        """
        ...

    def put(self, content: bytes, path: str) -> None:
        """Write a small file, whole or not at all; its folder is made.

        Raises:
            DeviceError: it cannot be written there.
            LinkLost: the connection went away.
        """
        ...

    def close(self) -> None:
        """End the connection and everything started over it."""
        ...
