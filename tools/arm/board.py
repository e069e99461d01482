"""The emulated board: a whole aarch64 machine with Linux and an SSH server, started and stopped.

Its file system lies in its memory, so each start is a freshly installed board. Its network is restricted: the
board reaches nothing, and only this machine's loopback reaches its SSH port.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeq.errors import UnavailableError
from tools.arm.cache import Environment, require
from tools.arm.keys import ALIAS, Keys, write_client

QEMU = "qemu-system-aarch64"
_READY = "edgeq-board: ready"
_STOP_S = 5.0


@dataclass(frozen=True)
class Options:
    """How the board is built.

    Args:
        cpu: as qemu calls it.
        cores: of the board; 1 with `counted_time`.
        memory_mb: its file system's included.
        counted_time: the board's clock advances 1 ns per instruction, so what it measures repeats.
        start_timeout_s: until SSH must answer.
    """

    cpu: str = "cortex-a76"
    cores: int = 2
    memory_mb: int = 2048
    counted_time: bool = False
    start_timeout_s: float = 180.0


@dataclass(frozen=True)
class Running:
    """A board that has been started."""

    process_id: int
    port: int
    started_s: float
    """From the start of the emulator to an answer over SSH."""
    ssh_config: str
    host: str = ALIAS


def start(options: Options, *, environment: Environment | None = None) -> Running:
    """Start the board and wait until SSH answers; a board that runs already is left as it is.

    Raises:
        UnavailableError: the environment or qemu is not there, or the board does not come up.
    """
    environment = environment or require()
    if shutil.which(QEMU) is None:
        raise UnavailableError(f"{QEMU} is not installed", fix="apt-get install qemu-system-arm")
    with _lock(environment):
        running = status(environment)
        return running if running is not None else _start(environment, options)


def stop(*, environment: Environment | None = None) -> bool:
    """Stop the board. False where none was running.

    Raises:
        UnavailableError: the environment is not there.
    """
    environment = environment or require()
    with _lock(environment):
        running = status(environment)
        if running is not None:
            _end(running.process_id)
        _state_file(environment).unlink(missing_ok=True)
    return running is not None


def status(environment: Environment) -> Running | None:
    """The board that is running; None where there is none."""
    try:
        state = json.loads(_state_file(environment).read_text(encoding="utf-8"))
        running = Running(**state)
        command = Path(f"/proc/{running.process_id}/cmdline").read_bytes()
    except (OSError, ValueError, TypeError):
        return None
    return running if str(environment.board).encode() in command else None


def ssh_command(running: Running, words: Sequence[str] = ()) -> list[str]:
    """The command that runs `words` on the board, or a shell."""
    return ["ssh", "-F", running.ssh_config, running.host, *words]


@contextmanager
def running_board(options: Options) -> Iterator[Running]:
    """A board for the length of a block; one that ran before goes on running after it.

    Raises:
        UnavailableError: as :func:`start`.
    """
    environment = require()
    earlier = status(environment)
    board = start(options, environment=environment)
    try:
        yield board
    finally:
        if earlier is None:
            stop(environment=environment)


def _start(environment: Environment, options: Options) -> Running:
    keys = Keys(environment.board)
    port = _free_port()
    write_client(keys, port=port)
    log = environment.board / "console.log"
    started = time.monotonic()
    with log.open("wb") as console:
        process = subprocess.Popen(
            _command(environment, options, port),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, log, keys, started + options.start_timeout_s)
    except BaseException:
        _end(process.pid)
        process.wait()
        raise
    running = Running(process.pid, port, round(time.monotonic() - started, 1), str(keys.ssh_config))
    _state_file(environment).write_text(json.dumps(asdict(running)) + "\n", encoding="utf-8")
    return running


def _command(environment: Environment, options: Options, port: int) -> list[str]:
    cores = 1 if options.counted_time else options.cores
    network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    return [
        *("nice", "-n", "5", QEMU, "-machine", "virt", "-cpu", options.cpu, "-smp", str(cores)),
        *("-m", str(options.memory_mb), "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"),
        *("-kernel", str(environment.kernel / "vmlinuz"), "-initrd", str(environment.board / "disk.cpio")),
        *("-append", "console=ttyAMA0 panic=-1 quiet rdinit=/init"),
        *("-netdev", network, "-device", "virtio-net-device,netdev=net"),
        *(("-icount", "shift=0") if options.counted_time else ()),
    ]


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, keys: Keys, deadline: float) -> None:
    """Return when the board has said that it is ready and SSH has run a command.

    Raises:
        UnavailableError: the emulator ended or the time is over.
    """
    probe = [
        "ssh",
        "-F",
        str(keys.ssh_config),
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=20",
        ALIAS,
        "true",
    ]
    while True:
        said = log.read_text(encoding="utf-8", errors="replace")
        tail = "\n".join(said.strip().splitlines()[-8:])
        if process.poll() is not None:
            raise UnavailableError(f"the emulated board ended at once (console: {log}):\n{tail}")
        if time.monotonic() > deadline:
            raise UnavailableError(f"the emulated board does not answer (console: {log}):\n{tail}")
        if _READY in said and subprocess.run(probe, capture_output=True).returncode == 0:
            return
        time.sleep(0.3)


def _end(process_id: int) -> None:
    """Ask the process to end, then make it."""
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline:
            with suppress(ChildProcessError):
                os.waitpid(process_id, os.WNOHANG)
            os.kill(process_id, 0)
            time.sleep(0.05)
        os.kill(process_id, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _state_file(environment: Environment) -> Path:
    return environment.board / "running.json"


@contextmanager
def _lock(environment: Environment) -> Iterator[None]:
    """One at a time: two starts at once would make two boards."""
    environment.board.mkdir(parents=True, exist_ok=True)
    with (environment.board / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
