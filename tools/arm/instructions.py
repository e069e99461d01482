"""Instructions that an aarch64 program executes between its own marks: the same cost in every run."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgeq.errors import UnavailableError
from tools.arm.cache import Environment, require, whole
from tools.arm.user_mode import QEMU, WORK, run_on_arm

_SOURCE = Path(__file__).with_name("count_instructions.c")
_COUNTS = "instructions.txt"
_PLUGIN = "count_instructions.so"


def count_instructions(
    command: Sequence[str], *, cpu: str, folder: Path, timeout_s: float = 600.0
) -> list[tuple[int, int]]:
    """Run an aarch64 program; give its marks as (label, instructions since its start), in order.

    Args:
        command: as for :func:`run_on_arm`; it marks with ``os.umask(guest.MARK | label)``, label 0..511.
        cpu: one of :data:`tools.arm.cpu.CPUS`.
        folder: the program's working folder; the plugin and its result are put there, too.
        timeout_s: after which it is killed.

    Raises:
        ArmProgramError: the program failed.
        UnavailableError: the environment, qemu or a C compiler is not there.
    """
    shutil.copyfile(_built(require()), folder / _PLUGIN)
    (folder / _COUNTS).unlink(missing_ok=True)
    plugin = f"{WORK}/{_PLUGIN},out={WORK}/{_COUNTS}"
    run_on_arm(command, cpu=cpu, folder=folder, plugin=plugin, timeout_s=timeout_s)
    lines = (folder / _COUNTS).read_text(encoding="ascii").splitlines()
    return [(int(label), int(count)) for label, count in (line.split() for line in lines)]


def qemu_version() -> str:
    """Of the user-mode emulator, as ``7.2.22``.

    Raises:
        UnavailableError: it is not installed.
    """
    if shutil.which(QEMU) is None:
        raise UnavailableError(f"{QEMU} is not installed", fix="apt-get install qemu-user")
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\S+)", said)
    if found is None:
        raise UnavailableError(f"{QEMU} does not tell its version: {said[:80]}")
    return found.group(1)


def _built(environment: Environment) -> Path:
    """The plugin, compiled for this qemu."""
    version = qemu_version()
    # qemu 9.0 dropped version 1 of the plugin interface; what is used of it here stayed as it was.
    interface = 1 if int(version.split(".")[0]) < 9 else 2
    stamp = int(_SOURCE.stat().st_mtime)
    library = environment.folder / f"plugin/{version}-{stamp}.so"
    if library.is_file():
        return library
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UnavailableError("no C compiler for the counting plugin", fix="apt-get install gcc libc6-dev")
    with whole(library) as unfinished:
        flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", f"-DPLUGIN_VERSION={interface}"]
        done = subprocess.run([compiler, *flags, "-o", unfinished, _SOURCE], capture_output=True, text=True)
        if done.returncode != 0:
            raise UnavailableError(f"the counting plugin does not compile:\n{done.stderr[-800:]}")
    return library
