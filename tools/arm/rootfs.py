"""A clean aarch64 root file system out of unpacked packages."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tools.arm import debian, recipe
from tools.arm.cache import whole

USER = "pi"
_USER_ID = 1000
_EMPTY_FOLDERS = ("dev", "proc", "sys", "run", "work", "mnt/host", "mnt/site", "mnt/edgeq", f"home/{USER}")
_SSHD = """\
# PAM's files are written by maintainer scripts, which have not run here; keys need none.
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile /etc/ssh/authorized_keys
Subsystem sftp /usr/lib/openssh/sftp-server
MaxStartups 64
MaxSessions 64
"""


def make_root(packages: Sequence[Path], root: Path) -> None:
    """Unpack `packages` and do what their scripts would have done: accounts, links, folders.

    Raises:
        UnavailableError: a package is damaged.
    """
    with whole(root) as unfinished:
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in ("bin", "sbin", "lib"):
            (unfinished / "usr" / name).mkdir(parents=True)
            (unfinished / name).symlink_to(f"usr/{name}")
        debian.unpack(packages, unfinished, left_out=recipe.LEFT_OUT)
        for name in _EMPTY_FOLDERS:
            (unfinished / name).mkdir(parents=True, exist_ok=True)
        _accounts(unfinished)
        _settings(unfinished)


def python_version(root: Path) -> str:
    """Of the root's ``python3``, as ``3.11``."""
    return (root / "usr/bin/python3").readlink().name.removeprefix("python")


def _accounts(root: Path) -> None:
    masters = root / "usr/share/base-passwd"
    passwd = (masters / "passwd.master").read_text(encoding="utf-8").replace(":*:", ":x:")
    group = (masters / "group.master").read_text(encoding="utf-8").replace(":*:", ":x:")
    passwd += "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
    passwd += f"{USER}:x:{_USER_ID}:{_USER_ID}::/home/{USER}:/bin/bash\n"
    group += f"{USER}:x:{_USER_ID}:\n"
    # A star: no password fits, yet the account is not locked, which sshd would refuse.
    names = [line.split(":", 1)[0] for line in passwd.splitlines()]
    shadow = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in names)
    etc = root / "etc"
    (etc / "passwd").write_text(passwd.replace(":/root:/bin/sh", ":/root:/bin/bash"), encoding="utf-8")
    (etc / "group").write_text(group, encoding="utf-8")
    (etc / "shadow").write_text(shadow, encoding="utf-8")
    (etc / "shadow").chmod(0o600)


def _settings(root: Path) -> None:
    for link, target in (("usr/bin/awk", "mawk"), ("usr/bin/sh", "dash")):
        if not (root / link).exists():
            (root / link).symlink_to(target)
    etc = root / "etc"
    (etc / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 edgeq-board\n", encoding="utf-8")
    (etc / "hostname").write_text("edgeq-board\n", encoding="utf-8")
    (etc / "ssh/sshd_config").write_text(_SSHD, encoding="utf-8")
