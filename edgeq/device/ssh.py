"""A device behind the user's own OpenSSH client: config, keys, agent, jump hosts and known_hosts count.

One connection carries all (ControlMaster). It runs ``cat`` on the device, whose input is a pipe from
this process: whichever way this process ends, the pipe closes, ``cat`` ends, and so does the connection.

A host key is judged by ssh and the user's config alone. BatchMode never asks, so an unknown key is an error.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import tempfile
import time
import weakref
from collections.abc import Sequence

from edgeq.device.address import Address
from edgeq.device.errors import DeviceError, LinkLost
from edgeq.device.process import ChildProcess, check_put, quoted_path

__all__ = ["SSH_VARIABLE", "SshLink", "explain_ssh"]

SSH_VARIABLE = "EDGEQ_SSH"
"""The ssh command, with options where wanted: ``ssh -F board.conf``."""
_READY = b"edgeq-connected"
_CONNECT_S = 10
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(_CONNECT_S),
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ForwardX11": "no",
    "ForwardAgent": "no",
    "ClearAllForwardings": "yes",
    "RequestTTY": "no",
    "PermitLocalCommand": "no",
}


class SshLink:
    """See `edgeq.device.link.DeviceLink`.

    Args:
        address: where the device is.
        folder: for edgeq's files there.
        ssh: the ssh command; None: as `SSH_VARIABLE` says, else ``ssh``.
    """

    python: str | None = None

    def __init__(
        self, address: Address, *, folder: str = "~/.edgeq", ssh: Sequence[str] | None = None
    ) -> None:
        self.name = address.text
        self.folder = folder
        self._address = address
        self._ssh = list(ssh or shlex.split(os.environ.get(SSH_VARIABLE, "")) or ["ssh"])
        self._home: str | None = None
        self._master: ChildProcess | None = None

    def open(self) -> None:
        """The connection that all others go through."""
        self.close()
        # Short: a socket's path may have about 100 characters, and ssh adds 17 of its own.
        self._home = tempfile.mkdtemp(prefix="eq-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)
        weakref.finalize(self, shutil.rmtree, self._home, ignore_errors=True)
        master = ["-o", "ControlMaster=yes", "-o", "ControlPersist=no"]
        self._master = ChildProcess(
            self._command([*master, "-S", f"{self._home}/s"], f"echo {_READY.decode()}; exec cat")
        )
        if not self._ready(self._master):
            status = self._master.wait(1.0)
            said = self._master.stderr_tail()
            self.close()
            raise explain_ssh(said, self.by_hand, self.name, timed_out=status is None)

    def start(self, script: str) -> ChildProcess:
        """The script, run by the device's ``sh``, whatever the user's login shell is."""
        if self._home is None or self._master is None or self._master.wait(0.0) is not None:
            raise LinkLost(f"{self.name}: there is no connection any more")
        through = ["-o", "ControlMaster=no", "-S", f"{self._home}/s"]
        return ChildProcess(self._command(through, f"exec sh -c {shlex.quote(script)}"))

    def put(self, content: bytes, path: str) -> None:
        """A file, whole or not at all."""
        target = quoted_path(path)
        script = (
            f'mkdir -p "$(dirname {target})" && cat > {target}.$$ && '
            f'[ "$(wc -c < {target}.$$)" -eq {len(content)} ] && mv {target}.$$ {target} '
            f"|| {{ rm -f {target}.$$; exit 1; }}"
        )
        process = self.start(script)
        try:
            check_put(process, content, path, self.name)
        except DeviceError as error:
            if self._master is not None and self._master.wait(0.5) is not None:
                raise LinkLost(f"{self.name}: the connection was lost during a transfer") from error
            raise

    def close(self) -> None:
        """End the connection; what runs on the device loses its input and ends."""
        if self._master is not None:
            self._master.end()
            self._master = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    @property
    def by_hand(self) -> str:
        """The command with which a person connects."""
        port = [] if self._address.port is None else ["-p", str(self._address.port)]
        return shlex.join([*self._ssh, *port, str(self._address.destination)])

    def _command(self, more: Sequence[str], remote: str) -> list[str]:
        options = [part for key, value in _OPTIONS.items() for part in ("-o", f"{key}={value}")]
        port = [] if self._address.port is None else ["-p", str(self._address.port)]
        return [*self._ssh, *options, *more, *port, "-T", str(self._address.destination), remote]

    def _ready(self, master: ChildProcess) -> bool:
        """Whether the connection stands; a login shell may print things of its own first."""
        seen, deadline_s = b"", time.monotonic() + 3 * _CONNECT_S
        with contextlib.suppress(OSError, ValueError):
            descriptor = master.stdout.fileno()
            while len(seen) < 1 << 16 and (left_s := deadline_s - time.monotonic()) > 0:
                if not select.select([descriptor], [], [], left_s)[0]:
                    return False
                piece = os.read(descriptor, 4096)
                if not piece:
                    return False
                seen += piece
                if _READY in seen:
                    return True
        return False


def explain_ssh(said: str, by_hand: str, name: str, *, timed_out: bool = False) -> DeviceError:
    """What ssh's words mean, as an error with its fix; `LinkLost` where another try may help."""
    last = (said.splitlines() or ["no answer"])[-1].strip()
    host = by_hand.split()[-1].rpartition("@")[2]
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        known = next((line for line in said.splitlines() if "ssh-keygen -f" in line), f"ssh-keygen -R {host}")
        return DeviceError(
            f"{name}: its host key is another one than in your known_hosts: another machine answers, or it "
            "was installed anew",
            fix=f"when you know why it changed: {known.strip()}, then connect once by hand: {by_hand}",
        )
    if "Host key verification failed" in said or "key is known for" in said:
        return DeviceError(
            f"{name}: its host key is not in your known_hosts, and edgeq accepts none by itself",
            fix=f"connect once by hand and compare the fingerprint: {by_hand}",
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        return DeviceError(
            f"{name}: the login was refused ({last})",
            fix=f"let a key in (ssh-copy-id), or load it into your ssh agent; then try: {by_hand}",
        )
    if "Could not resolve hostname" in said:
        return DeviceError(
            f"{name}: there is no host of that name ({last})", fix="check the name, or use its IP address"
        )
    if "Connection refused" in said:
        return LinkLost(
            f"{name}: nothing answers there on the ssh port",
            fix=f"start sshd on it, or name its port: {by_hand}",
        )
    if timed_out or any(word in said for word in ("timed out", "No route", "unreachable")):
        return LinkLost(
            f"{name}: it does not answer ({last})", fix="check that it is on, and on this network"
        )
    if "Bad owner or permissions" in said or "Can't open user config" in said or "terminating, " in said:
        return DeviceError(f"{name}: your ssh config is refused: {last}", fix=f"try it by hand: {by_hand}")
    return LinkLost(f"{name}: ssh gave up: {last}", fix=f"try it by hand: {by_hand}")
