"""The emulated board, and what a device needs to be installed on it. Minutes each: EDGEQ_ARM_TESTS=full."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.arm import board
from tools.arm.cache import Environment
from tools.arm.install_size import install_size
from tools.arm.rootfs import USER

START_S = 60


@pytest.fixture(scope="module")
def running(full: Environment) -> Iterator[board.Running]:
    with board.running_board(board.Options()) as started:
        yield started


def _on_board(running: board.Running, command: str, *, as_root: bool = False) -> str:
    words = board.ssh_command(running, [command])
    if as_root:
        words[words.index(running.host)] += "-root"
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout


def test_board_is_an_aarch64_machine_that_shows_it_is_emulated(running: board.Running) -> None:
    assert running.started_s < START_S
    assert _on_board(running, "uname -m; id -un").split() == ["aarch64", USER]
    assert _on_board(running, "id -u", as_root=True).strip() == "0"
    model = _on_board(running, "cat /proc/device-tree/model /proc/device-tree/compatible")
    assert model == "linux,dummy-virt\0linux,dummy-virt\0"
    assert "0xd0b" in _on_board(running, "grep -m 1 part /proc/cpuinfo")


def test_board_reaches_nothing(running: board.Running) -> None:
    program = "import socket; s = socket.socket(); s.settimeout(5); print(s.connect_ex(('10.0.2.2', 22)))"
    assert _on_board(running, f'python3 -c "{program}"').strip() != "0"


def test_second_start_gives_the_same_board(running: board.Running) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "tools.arm", "start"], capture_output=True, text=True, check=True
    )
    assert json.loads(again.stdout)["process_id"] == running.process_id


def test_an_unknown_key_is_refused(running: board.Running, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.touch()
    words = [*board.ssh_command(running)[:3], "-o", f"UserKnownHostsFile={known}", running.host, "true"]
    refused = subprocess.run(words, capture_output=True, text=True)
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_wheels_install_on_a_clean_aarch64_system(full: Environment) -> None:
    """What the runtime tflite brings by itself stays small; a rough bound, the number is in the README."""
    measured = install_size(full)
    assert {"ai-edge-litert", "numpy", "edgeq"} <= set(measured.packages)
    assert 10 < measured.installed_mb < 600
