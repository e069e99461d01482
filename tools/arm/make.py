"""Makes the ARM environment. A part appears when it is whole, so an interrupted run goes on where it was."""

from __future__ import annotations

import shutil
import sys

from edgeq.errors import UnavailableError
from tools.arm import board, debian, image, recipe, rootfs, user_mode, wheels
from tools.arm.cache import Environment, locate
from tools.arm.keys import make_keys


def make() -> Environment:
    """The environment, complete. What is there is not made again.

    Raises:
        UnavailableError: what is missing on this machine, or cannot be reached from it.
    """
    environment = locate()
    if environment.is_made:
        return environment
    _check_host()
    environment.folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, object] = {"release": recipe.release()}
    apt = debian.Apt(environment.shared / "apt")
    _say("package lists of arm64")
    apt.update()
    _say("packages of the root file system")
    packages = apt.fetch(recipe.PACKAGES)
    facts["packages"] = dict(sorted(debian.version(path) for path in packages))
    if not environment.root.is_dir():
        _say(f"root file system: {len(packages)} packages")
        rootfs.make_root(packages, environment.root)
    facts["python"] = python = rootfs.python_version(environment.root)
    kernel = apt.fetch_alone(apt.first_dependency(recipe.KERNEL))
    facts["kernel"] = " ".join(debian.version(kernel))
    if not environment.kernel.is_dir():
        _say("kernel")
        image.make_kernel(kernel, environment.kernel)
    if not environment.wheels.is_dir():
        _say("wheels for aarch64")
        wheels.fetch(environment.wheels, python=python)
    facts["wheels"] = wheels.versions(environment.wheels)
    if not environment.site.is_dir():
        _say("wheels, unpacked")
        wheels.install(environment.wheels, environment.site, python=python)
    _make_board(environment)
    environment.write_facts(facts)
    return environment


def _make_board(environment: Environment) -> None:
    disk = environment.board / "disk.cpio"
    keys = make_keys(environment.board)
    if not disk.is_file():
        _say("the board's disk")
        image.make_disk(environment, keys, disk)


def _check_host() -> None:
    """Raise what this machine lacks.

    Raises:
        UnavailableError: a program, or the Linux that they belong to.
    """
    missing = [name for name in ("apt-get", "apt-cache", "dpkg-deb", "tar") if shutil.which(name) is None]
    if missing:
        raise UnavailableError(
            f"the ARM environment is made of Debian packages, and there is no {', '.join(missing)} here",
            fix="make it on Debian, or in a container of it",
        )
    emulators = {user_mode.QEMU: "qemu-user", board.QEMU: "qemu-system-arm"}
    absent = [package for name, package in emulators.items() if shutil.which(name) is None]
    if absent:
        raise UnavailableError("qemu is not installed", fix=f"apt-get install {' '.join(absent)} (as root)")


def _say(what: str) -> None:
    sys.stderr.write(f"making {what}\n")
