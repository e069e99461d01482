"""What ``--on`` takes: what ssh takes, and ``local``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeq.errors import InputError

__all__ = ["Address", "parse_address"]

_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.%a-z]+\])")
_SHOWN = "local, an alias of your ssh config, user@host, or ssh://user@host:port"


@dataclass(frozen=True)
class Address:
    """Where a device is."""

    text: str
    """As the user wrote it."""
    destination: str | None
    """For the ssh client: an alias or ``user@host``; None: this machine."""
    port: int | None = None

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return self.destination is None


def parse_address(text: str) -> Address:
    """The address that a text means.

    A plain pattern, not whatever ssh would take: a "host" that begins with a dash is an option to ssh.

    Raises:
        InputError: it means none.
    """
    if text == "local":
        return Address(text, None)
    rest = text[len("ssh://") :].rstrip("/") if text.startswith("ssh://") else text
    host, port = rest, None
    tail = re.fullmatch(r"(.*[^:]):([0-9]{1,5})", rest)
    if tail is not None and (not tail[1].count(":") or tail[1].endswith("]")):
        host, port = tail[1], int(tail[2])
    if not _HOST.fullmatch(host) or (port is not None and not 0 < port < 65536):
        raise InputError(f"{text!r} is no device", fix=f"give {_SHOWN}")
    return Address(text, host.replace("[", "").replace("]", ""), port)
