"""The board's SSH keys and the client's configuration that goes with them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import UnavailableError
from tools.arm.rootfs import USER

ALIAS = "edgeq-board"
"""What ``ssh`` calls the board; as ``edgeq-board-root`` it lets in the administrator."""


@dataclass(frozen=True)
class Keys:
    """Key files in the board's folder."""

    folder: Path

    @property
    def host(self) -> Path:
        """The server's private key."""
        return self.folder / "host_ed25519"

    @property
    def user(self) -> Path:
        """The client's private key."""
        return self.folder / "user_ed25519"

    @property
    def known_hosts(self) -> Path:
        """What the client knows of the server."""
        return self.folder / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``."""
        return self.folder / "ssh_config"


def make_keys(folder: Path) -> Keys:
    """Make the keys that are not there yet.

    Raises:
        UnavailableError: OpenSSH's client is not installed.
    """
    keys = Keys(folder)
    if shutil.which("ssh-keygen") is None:
        raise UnavailableError("ssh-keygen is not installed", fix="apt-get install openssh-client")
    folder.mkdir(parents=True, exist_ok=True)
    for path in (keys.host, keys.user):
        if not path.is_file():
            quiet = ["-q", "-t", "ed25519", "-N", "", "-C", ALIAS]
            subprocess.run(["ssh-keygen", *quiet, "-f", path], check=True, stdin=subprocess.DEVNULL)
    return keys


def write_client(keys: Keys, *, port: int) -> None:
    """Write the configuration by which ``ssh -F`` reaches the board on a port of this machine."""
    kind, key, _ = keys.host.with_suffix(".pub").read_text(encoding="utf-8").split(" ", 2)
    keys.known_hosts.write_text(f"{ALIAS} {kind} {key}\n", encoding="utf-8")
    common = f"""\
  HostName 127.0.0.1
  Port {port}
  HostKeyAlias {ALIAS}
  IdentityFile "{keys.user}"
  IdentitiesOnly yes
  UserKnownHostsFile "{keys.known_hosts}"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  CheckHostIP no
"""
    blocks = (f"Host {ALIAS}\n  User {USER}\n{common}", f"Host {ALIAS}-root\n  User root\n{common}")
    keys.ssh_config.write_text("\n".join(blocks), encoding="utf-8")
