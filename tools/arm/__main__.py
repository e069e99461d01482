"""``python -m tools.arm``: make the ARM environment, and use it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from edgeq.errors import EdgeqError
from tools.arm import board
from tools.arm.cache import locate, require
from tools.arm.e2e import Settings, walk
from tools.arm.make import make


def main() -> int:
    """Run one command. 0 when done, else the exit code that edgeq gives to such an error."""
    given = _parser().parse_args()
    try:
        return int(given.run(given))
    except EdgeqError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def _make(_: argparse.Namespace) -> int:
    _print({"folder": str(make().folder)})
    return 0


def _start(given: argparse.Namespace) -> int:
    options = board.Options(cpu=given.cpu, cores=given.cores, counted_time=given.icount)
    _print(asdict(board.start(options)))
    return 0


def _stop(_: argparse.Namespace) -> int:
    _print({"was_running": board.stop()})
    return 0


def _status(_: argparse.Namespace) -> int:
    environment = locate()
    running = board.status(environment) if environment.is_made else None
    _print(
        {
            "folder": str(environment.folder),
            "made": environment.facts() if environment.is_made else None,
            "board": None if running is None else asdict(running),
        }
    )
    return 0


def _ssh(given: argparse.Namespace) -> int:
    running = board.status(require())
    if running is None:
        sys.stderr.write("error: the board is not running\n  fix: python -m tools.arm start\n")
        return 4
    return subprocess.call(board.ssh_command(running, given.words))


def _e2e(given: argparse.Namespace) -> int:
    def tell(command: str) -> None:
        sys.stderr.write(f"$ {command}\n")

    settings = Settings(given.model, given.data, given.bundle, given.images, given.duration)
    with tempfile.TemporaryDirectory(prefix="edgeq-arm-e2e-") as folder:
        _print(walk(settings, Path(folder), tell=tell))
    return 0


def _print(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.arm", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("make", help="make the environment; needs the network once").set_defaults(run=_make)
    start = commands.add_parser("start", help="start the emulated board and wait for its SSH server")
    start.add_argument("--cpu", default="cortex-a76", help="as qemu calls it (%(default)s)")
    start.add_argument("--cores", type=int, default=2, help="of the board (%(default)s)")
    start.add_argument(
        "--icount", action="store_true", help="one core, 1 ns per instruction: times on the board repeat"
    )
    start.set_defaults(run=_start)
    commands.add_parser("stop", help="stop it").set_defaults(run=_stop)
    commands.add_parser("status", help="what is made and what runs").set_defaults(run=_status)
    e2e = commands.add_parser("e2e", help="set the board up, evaluate, audit, bench and gate a bundle there")
    e2e.add_argument("--model", type=Path, help="to quantise first; else the demo's")
    e2e.add_argument("--data", type=Path, help="data.yaml; else the demo's")
    e2e.add_argument("--bundle", type=Path, help="made before; nothing is quantised")
    e2e.add_argument("--images", type=int, default=32, help="to evaluate on (%(default)s)")
    e2e.add_argument("--duration", default="20s", help="of the latency run (%(default)s)")
    e2e.set_defaults(run=_e2e)
    ssh = commands.add_parser("ssh", help="a shell on the board, or a command there")
    ssh.add_argument("words", nargs="*")
    ssh.set_defaults(run=_ssh)
    return parser


if __name__ == "__main__":
    sys.exit(main())
