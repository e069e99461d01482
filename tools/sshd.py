"""An SSH server of this machine's own on 127.0.0.1: a device for tests, benchmarks and trying things by hand.

It has keys and known hosts of its own in a folder, and knows nothing of the user's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import UnavailableError

__all__ = ["ALIAS", "Server", "free_port", "make_key", "running_sshd"]

ALIAS = "board"
_START_S = 20.0


@dataclass(frozen=True)
class Server:
    """A running sshd and the client's side of it."""

    folder: Path
    port: int
    config: Path
    """The client's, in which the server is called `ALIAS`."""
    known_hosts: Path

    @property
    def ssh(self) -> tuple[str, ...]:
        """The ssh command, as for ``EDGEQ_SSH``."""
        return ("ssh", "-F", str(self.config))

    def config_with(self, name: str, **options: str) -> tuple[str, ...]:
        """The ssh command with another config: the same, with these options instead."""
        lines = self.config.read_text().splitlines()
        kept = [line for line in lines if not line.split() or line.split()[0] not in options]
        path = self.folder / name
        path.write_text("\n".join([*kept, *(f"  {key} {value}" for key, value in options.items())]) + "\n")
        path.chmod(0o600)
        return ("ssh", "-F", str(path))


@contextmanager
def running_sshd(folder: Path) -> Iterator[Server]:
    """The server for the length of a block.

    Args:
        folder: of its own, for keys and configuration.

    Raises:
        UnavailableError: OpenSSH is not installed, or its server does not run here.
    """
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        raise UnavailableError(
            "there is no OpenSSH server and client here", fix="apt-get install openssh-server openssh-client"
        )
    server = _configured(folder)
    if os.geteuid() == 0:
        # Root's sshd wants its folder for privilege separation.
        with contextlib.suppress(OSError):
            Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    command = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _wait_until_ready(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def make_key(path: Path) -> None:
    """A key pair without a passphrase: ``path`` and ``path.pub``."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _configured(folder: Path) -> Server:
    folder.chmod(0o700)
    for name in ("host", "user"):
        make_key(folder / name)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    port, known, config = free_port(), folder / "known_hosts", folder / "client"
    known.write_text(f"[127.0.0.1]:{port} {' '.join((folder / 'host.pub').read_text().split()[:2])}\n")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxSessions 64\nMaxStartups 64\n"
    )
    config.write_text(
        f"Host {ALIAS}\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n"
    )
    config.chmod(0o600)
    return Server(folder, port, config, known)


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Return when a command has run over SSH.

    Raises:
        UnavailableError: the server ended or the time is over.
    """
    probe = [*server.ssh, "-o", "BatchMode=yes", ALIAS, "true"]
    deadline = time.monotonic() + _START_S
    while True:
        tried = subprocess.run(probe, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return
        if time.monotonic() > deadline or process.poll() is not None:
            process.kill()
            said = process.stderr.read().decode(errors="replace")[-300:] if process.stderr else ""
            raise UnavailableError(f"sshd does not run here: {said or tried.stderr}")
        time.sleep(0.2)
