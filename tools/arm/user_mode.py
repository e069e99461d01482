"""Runs one aarch64 program inside the root file system, on an x86 host, by qemu's user mode.

A private mount namespace holds the view that the program gets, so nothing has to be unmounted afterwards,
whatever ends it. The emulator itself is the host's: started inside through the host's own dynamic loader, no
static build and no binfmt registration is needed. What that costs: the program cannot start others.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import UnavailableError
from tools.arm.cache import require
from tools.arm.cpu import cpu_named, write_system

QEMU = "qemu-aarch64"
PYTHON = "/usr/bin/python3"
WORK = "/work"
"""Where the program finds `folder`."""
_PROJECT = Path(__file__).resolve().parents[2]
_HOST = "/mnt/host"
_VIEW = """\
set -eu
root=$1 cpuinfo=$2 system=$3 work=$4 site=$5 project=$6
shift 6
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --rbind / "$root/mnt/host"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$cpuinfo" "$root/proc/cpuinfo"
mount --bind "$system" "$root/sys"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$work" "$root/work"
mount --bind "$site" "$root/mnt/site"
mount --bind "$project" "$root/mnt/edgeq"
exec unshare --root="$root" --wd=/work "$@"
"""
_SETTINGS = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/usr/sbin",
    "PYTHONPATH": "/mnt/site:/mnt/edgeq",
    # Compiling modules is what takes longest in an emulated start, so what was compiled is kept.
    "PYTHONPYCACHEPREFIX": "/mnt/site/.pycache",
}
_LAST_LINES = 15


@dataclass(frozen=True)
class Output:
    """What an aarch64 program wrote."""

    stdout: str
    stderr: str


class ArmProgramError(Exception):
    """The program ended with another exit code than 0; the text holds what it said."""


def run_on_arm(
    command: Sequence[str],
    *,
    cpu: str = "cortex-a76",
    folder: Path | None = None,
    plugin: str | None = None,
    timeout_s: float = 600.0,
) -> Output:
    """Run a program of the aarch64 root file system to its end.

    Args:
        command: the program's path there (:data:`PYTHON`) and its arguments.
        cpu: one of :data:`tools.arm.cpu.CPUS`.
        folder: what the program has as its working folder :data:`WORK`; it may write there.
        plugin: qemu's ``-plugin`` argument, with paths as the program sees them.
        timeout_s: after which it is killed.

    Raises:
        ArmProgramError: its exit code is not 0.
        UnavailableError: the environment or qemu is not there, or namespaces are forbidden.
        subprocess.TimeoutExpired: it took too long.
    """
    environment = require()
    profile = cpu_named(cpu)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeq-arm-")))
        write_system(scratch / "sys")
        (scratch / "cpuinfo").write_text(profile.cpuinfo(), encoding="ascii")
        (scratch / "work").mkdir()
        view = [
            *(environment.root, scratch / "cpuinfo", scratch / "sys", folder or scratch / "work"),
            *(environment.site, _PROJECT),
        ]
        plugins = [] if plugin is None else ["-plugin", plugin]
        words = [*_namespaces(), "sh", "-c", _VIEW, "sh", *view]
        words += [*_emulator(), "-cpu", cpu, *plugins, *command]
        done = subprocess.run(
            [str(word) for word in words],
            env=_SETTINGS,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
        )
    stdout, stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode != 0:
        tail = "\n".join((stdout + stderr).strip().splitlines()[-_LAST_LINES:])
        raise ArmProgramError(f"{' '.join(command)[:200]} on {cpu}: exit code {done.returncode}\n{tail}")
    return Output(stdout, stderr)


def check_user_mode() -> None:
    """Raise what keeps programs from being run, if anything does.

    Raises:
        UnavailableError: the environment or qemu is not there, or namespaces are forbidden.
    """
    require()
    _emulator()
    tried = subprocess.run([*_namespaces(), "mount", "--bind", "/", "/"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise UnavailableError(
            f"this machine forbids mounts of one's own: {tried.stderr.strip()}",
            fix="run as root, or allow user namespaces (in a container: --cap-add SYS_ADMIN)",
        )


def _namespaces() -> list[str]:
    """The command that gives its argument mounts of its own; root needs no user namespace for it."""
    if shutil.which("unshare") is None:
        raise UnavailableError("unshare is not installed", fix="apt-get install util-linux")
    own_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *own_user, "--mount"]


def _emulator() -> list[str]:
    """The command inside the view that starts the host's qemu with the host's libraries."""
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise UnavailableError(f"{QEMU} is not installed", fix="apt-get install qemu-user")
    listed = subprocess.run(["ldd", qemu], capture_output=True, text=True).stdout
    libraries = sorted({str(Path(path).parent.resolve()) for path in re.findall(r"=> (/\S+)", listed)})
    loader = re.search(r"^\s*(/\S*ld-\S+)", listed, re.MULTILINE)
    inside = f"{_HOST}{Path(qemu).resolve()}"
    if loader is None:
        return [inside]
    search = ":".join(f"{_HOST}{folder}" for folder in libraries)
    return [f"{_HOST}{Path(loader.group(1)).resolve()}", "--library-path", search, inside]
