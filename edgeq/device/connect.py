"""First contact: what is there, and the agent brought where it is not."""

from __future__ import annotations

import json
import os
import select
import time
from enum import Enum
from typing import Any

from edgeq.device.agent.wire import MAGIC, PROTOCOL
from edgeq.device.answers import Hello, Probe, parse
from edgeq.device.errors import DeviceError, LinkLost
from edgeq.device.link import DeviceLink, Process
from edgeq.device.package import Agent, build_agent
from edgeq.device.process import quoted_path

__all__ = [
    "LEAST_PYTHON",
    "Interpreter",
    "bring_agent",
    "lost",
    "probe",
    "read_line",
    "run_script",
    "start_agent",
    "usable",
]

LEAST_PYTHON = (3, 9)
_MARK = "edgeq-probe "
_ANSWER_S = 120.0
"""For one python to start on a slow, loaded or emulated board."""
_MAX_OUTPUT_BYTES = 1 << 18
_MAX_NOISE_LINES = 200
"""Lines that a login shell's start-up files may print before the agent speaks."""

# Any Python from 2.7 on has to run this, to be told that it is too old.
_PROBE_PYTHON = r"""
import hashlib, json, os, platform, struct, sys
root, agent, sha, system, machine = sys.argv[1:6]
def digest(path):
    try:
        return hashlib.sha256(open(path, "rb").read()).hexdigest()
    except (IOError, OSError):
        return ""
setup = None
try:
    setup = json.load(open(os.path.join(root, "venv", "edgeq-setup.json")))
except (IOError, OSError, ValueError):
    pass
print("edgeq-probe " + json.dumps({
    "system": system, "machine": machine, "python": sys.executable, "version": list(sys.version_info[:3]),
    "bits": struct.calcsize("P") * 8, "libc": list(platform.libc_ver()), "root": root,
    "agent": digest(os.path.join(root, "agent", agent)) == sha, "setup": setup}))
"""


class Interpreter(Enum):
    """Which Python of a device."""

    USUAL = "usual"
    """The link's own where it names one, else that of edgeq's environment, else the system's."""
    SYSTEM = "system"
    """The link's own, else the system's: that of the environment could not replace itself."""
    ENVIRONMENT = "environment"
    """That of edgeq's environment, whatever the link names; else the system's."""


def probe(
    link: DeviceLink, agent: Agent | None = None, *, interpreter: Interpreter = Interpreter.USUAL
) -> Probe:
    """What the device is, and which Python it has.

    Args:
        link: opened.
        agent: to look for; None: this edgeq's.
        interpreter: whom to ask.

    Raises:
        DeviceError: no shell, or an answer that makes no sense.
        LinkLost: the connection went away.
    """
    chosen = agent or build_agent()
    own = None if interpreter is Interpreter.ENVIRONMENT else link.python
    candidates = quoted_path(own) if own else "python3 python"
    prefer = ""
    if own is None and interpreter is not Interpreter.SYSTEM:
        prefer = '[ -f "$root/venv/edgeq-setup.json" ] && set -- "$root/venv/bin/python" "$@"'
    script = f"""
root={quoted_path(link.folder)}
program={quoted_path(_PROBE_PYTHON)}
system=$(uname -s); machine=$(uname -m)
set -- {candidates}
{prefer}
for python in "$@"; do
  "$python" -c "$program" "$root" '{chosen.file_name}' '{chosen.sha256}' "$system" "$machine" 2>/dev/null \\
    && exit 0
done
echo '{_MARK}{{"system": "'"$system"'", "machine": "'"$machine"'", "python": null}}'
"""
    status, output, said = run_script(link, script)
    lines = [line for line in output.splitlines() if line.startswith(_MARK)]
    if status is None or (not lines and status != 0):
        raise lost(link.name, status, said)
    try:
        data = json.loads(lines[-1][len(_MARK) :])
    except (IndexError, ValueError, RecursionError) as error:
        raise DeviceError(
            f"{link.name}: its shell does not answer as a POSIX shell does ({output.strip()[-200:]!r})",
            fix="edgeq needs a device with a Linux-like shell and Python 3.9 or later",
        ) from error
    return parse(Probe, data, link.name)


def usable(found: Probe, name: str) -> Probe:
    """The probe of a device that an agent can run on.

    Raises:
        DeviceError: no Python, one too old, or a system that it is not made for.
    """
    if found.python is None or found.version is None:
        raise DeviceError(
            f"{name}: there is no Python on it (looked for python3 and python)",
            fix="install it: sudo apt install python3 (Debian, Ubuntu, Raspberry Pi OS)",
        )
    if found.version < LEAST_PYTHON:
        shown = ".".join(map(str, found.version))
        raise DeviceError(
            f"{name}: its Python is {shown}, the agent needs 3.9 or later", fix="install a newer Python on it"
        )
    return found


def bring_agent(link: DeviceLink, *, interpreter: Interpreter = Interpreter.USUAL) -> Probe:
    """The probe of a device that has the agent now; sent only where it is not there already."""
    agent = build_agent()
    found = usable(probe(link, agent, interpreter=interpreter), link.name)
    if not found.agent:
        link.put(agent.content, f"{found.root}/agent/{agent.file_name}")
    return found


def start_agent(link: DeviceLink, found: Probe) -> tuple[Process, Hello]:
    """The agent at work, after its hello.

    Raises:
        DeviceError: it does not start, or speaks another protocol.
        LinkLost: the connection went away.
    """
    agent = build_agent()
    root = quoted_path(found.root)
    path = quoted_path(f"{found.root}/agent/{agent.file_name}")
    process = link.start(f"exec {quoted_path(str(found.python))} {path} --root {root} --agent {agent.sha256}")
    for _ in range(_MAX_NOISE_LINES):
        line = read_line(process, _ANSWER_S)
        if line is None:
            status = process.wait(2.0)
            said = process.stderr_tail()
            process.end()
            raise _not_started(link.name, status, said)
        hello = _hello_of(line, link.name)
        if hello is not None:
            return process, hello
    process.end()
    raise DeviceError(
        f"{link.name}: something there prints without end where the agent should speak",
        fix="keep your shell's start-up files on the device silent for commands (no echo in .bashrc)",
    )


def run_script(link: DeviceLink, script: str, *, timeout_s: float = _ANSWER_S) -> tuple[int | None, str, str]:
    """Exit status (None: it took too long), output and the end of stderr of a script on the device."""
    process = link.start(script)
    deadline_s = time.monotonic() + timeout_s
    output = b""
    try:
        while len(output) < _MAX_OUTPUT_BYTES and (left_s := deadline_s - time.monotonic()) > 0:
            if not select.select([process.stdout], [], [], left_s)[0]:
                break
            piece = _read_some(process)
            if not piece:
                break
            output += piece
        status = process.wait(max(1.0, min(5.0, deadline_s - time.monotonic())))
        return status, output.decode(errors="replace"), process.stderr_tail()
    finally:
        process.end()


def read_line(process: Process, timeout_s: float) -> bytes | None:
    """A line of at most 64 KiB from an unbuffered start; None: the stream ended or nothing came in time."""
    deadline_s = time.monotonic() + timeout_s
    line = b""
    descriptor = process.stdout.fileno()
    while len(line) < 1 << 16:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            return None
        # One by one: what follows the line is for the reader that takes over.
        byte = os.read(descriptor, 1)
        if not byte:
            return None
        if byte == b"\n":
            return line
        line += byte
    return line


def lost(name: str, status: int | None, said: str) -> DeviceError:
    """Why a process on the device is gone, as far as its status tells."""
    last = (said.strip().splitlines() or ["it said nothing"])[-1].strip()[:300]
    if status is None:
        return LinkLost(f"{name}: no answer in time", fix="check the device's load, then try again")
    if status in (-9, 137):
        return LinkLost(
            f"{name}: the agent was killed there (signal 9)",
            fix="often the kernel, for want of memory: free some, or use a smaller model",
        )
    if status == 255:
        return LinkLost(f"{name}: the connection was lost ({last})", fix="check the network, then try again")
    return LinkLost(f"{name}: the agent ended with status {status}: {last}")


def _not_started(name: str, status: int | None, said: str) -> DeviceError:
    if "No module named" in said:
        module = said.rpartition("No module named")[2].strip().strip("'\"").splitlines()[0]
        return DeviceError(f"{name}: its Python has no module {module}", fix=f"edgeq device setup {name}")
    if status in (126, 127) or "cannot execute" in said or "Exec format" in said:
        return DeviceError(
            f"{name}: its Python cannot be run: {said[-300:]}",
            fix=f"edgeq device clean {name}, then edgeq device setup {name}",
        )
    return lost(name, status, said)


def _hello_of(line: bytes, name: str) -> Hello | None:
    """The hello, or None for a line that is none.

    Raises:
        DeviceError: another protocol, or an agent that cannot start.
    """
    if MAGIC.encode() not in line:
        return None
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.get("magic") != MAGIC:
        return None
    hello = parse(Hello, data, name)
    if hello.protocol != PROTOCOL:
        raise DeviceError(
            f"{name}: the agent there speaks protocol {hello.protocol}, this edgeq {PROTOCOL}",
            fix=f"edgeq device clean {name}",
        )
    if hello.failed is not None:
        raise DeviceError(f"{name}: the agent cannot keep its files there: {hello.failed}")
    return hello


def _read_some(process: Process) -> bytes:
    return os.read(process.stdout.fileno(), 1 << 16)
