"""The board's kernel and initial RAM disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tools.arm import debian, recipe
from tools.arm.archive import write_archive
from tools.arm.cache import Environment, whole
from tools.arm.keys import Keys

_MODULES = "lib/modules/edgeq"
_INIT = Path(__file__).with_name("board_init.sh")


def make_kernel(package: Path, folder: Path) -> None:
    """Take the kernel and the modules that the board needs out of their package.

    Raises:
        UnavailableError: the package is damaged.
    """
    with whole(folder) as unfinished, tempfile.TemporaryDirectory(prefix="edgeq-kernel-") as scratch:
        shutil.rmtree(unfinished, ignore_errors=True)
        debian.unpack([package], Path(scratch))
        unfinished.mkdir(parents=True)
        (image,) = Path(scratch, "boot").glob("vmlinuz-*")
        shutil.copyfile(image, unfinished / "vmlinuz")
        (modules,) = Path(scratch, "lib/modules").iterdir()
        for name in recipe.KERNEL_MODULES:
            shutil.copyfile(modules / "kernel" / name, unfinished / Path(name).name)
        order = "".join(f"{Path(name).name}\n" for name in recipe.KERNEL_MODULES)
        (unfinished / "order").write_text(order, encoding="utf-8")


def make_disk(environment: Environment, keys: Keys, disk: Path) -> None:
    """Pack the root file system, the modules, the keys and the first process into one archive.

    Args:
        environment: whose ``root`` and ``kernel`` are made.
        keys: the server's, and the client that is let in.
        disk: the archive.
    """
    with whole(disk) as unfinished, tempfile.TemporaryDirectory(prefix="edgeq-disk-") as scratch:
        over = Path(scratch)
        over.chmod(0o755)
        shutil.copyfile(_INIT, over / "init")
        (over / "init").chmod(0o755)
        modules = over / _MODULES.replace("lib", "usr/lib", 1)
        modules.mkdir(parents=True)
        for path in environment.kernel.iterdir():
            if path.name != "vmlinuz":
                shutil.copyfile(path, modules / path.name)
        ssh = over / "etc/ssh"
        ssh.mkdir(parents=True)
        shutil.copyfile(keys.host, ssh / "ssh_host_ed25519_key")
        (ssh / "ssh_host_ed25519_key").chmod(0o600)
        shutil.copyfile(keys.user.with_suffix(".pub"), ssh / "authorized_keys")
        with unfinished.open("wb") as out:
            write_archive(out, [(environment.root, ""), (over, "")])
