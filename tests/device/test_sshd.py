"""The ssh link against a real sshd on 127.0.0.1: keys, refusals, cuts, and whole work over it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edgeq.device.address import Address, parse_address
from edgeq.device.client import Device
from edgeq.device.connect import run_script
from edgeq.device.errors import DeviceError, LinkLost
from edgeq.device.parity import parity
from edgeq.device.predictions import image_files
from edgeq.device.provision import clean
from edgeq.device.ssh import SshLink
from edgeq.device.worker import Worker
from tools.sshd import free_port

from .test_work import QUICK, gone, here, predictor

BOARD = Address("board", "board")


def link_of(board, folder, **options) -> SshLink:
    return SshLink(options.pop("address", BOARD), folder=str(folder), ssh=options.pop("ssh", board.ssh))


def test_predictions_over_ssh_equal_this_machines(board, device_folder, model_file, pictures):
    with Worker(link_of(board, device_folder)) as worker:
        found = predictor(worker, model_file).predict(image_files(pictures))
        assert worker.device.probe.setup is not None
    assert parity(here(model_file, pictures), found).identical
    assert gone(device_folder)


def test_one_connection_carries_everything(board, device_folder):
    link = link_of(board, device_folder)
    link.open()
    try:
        # A second login would need the key, which the config no longer has.
        link._ssh = list(board.config_with("nokey", IdentityFile="/nonexistent"))
        assert run_script(link, "echo through") == (0, "through\n", "")
    finally:
        link.close()


def test_the_connection_ends_when_this_process_dies(board, tmp_path):
    code = (
        "import sys, time; from edgeq.device.ssh import SshLink; from edgeq.device.address import Address\n"
        f"link = SshLink(Address('board', 'board'), folder={str(tmp_path)!r}, ssh={board.ssh!r})\n"
        "link.open(); print(link._home, flush=True); time.sleep(60)"
    )
    import sys

    victim = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    home = victim.stdout.readline().strip()
    assert Path(home, "s").exists()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert gone(home)
    subprocess.run(["rm", "-rf", home], check=True)


def test_an_unknown_host_key_is_an_error_with_the_command(board, tmp_path):
    empty = tmp_path / "known"
    empty.write_text("")
    ssh = board.config_with("unknown", UserKnownHostsFile=str(empty))
    with pytest.raises(DeviceError, match="not in your known_hosts") as failure:
        link_of(board, tmp_path, ssh=ssh).open()
    assert f"ssh -F {board.folder}/unknown board" in failure.value.fix
    assert empty.read_text() == ""
    assert not isinstance(failure.value, LinkLost)


def test_a_changed_host_key_is_told_apart(board, tmp_path):
    other = tmp_path / "known"
    key = (board.folder / "stranger.pub").read_text().split()[1]
    other.write_text(f"[127.0.0.1]:{board.port} ssh-ed25519 {key}\n")
    ssh = board.config_with("changed", UserKnownHostsFile=str(other))
    with pytest.raises(DeviceError, match="another one than in your known_hosts") as failure:
        link_of(board, tmp_path, ssh=ssh).open()
    assert "ssh-keygen" in failure.value.fix


def test_a_refused_login(board, tmp_path):
    ssh = board.config_with("stranger.conf", IdentityFile=str(board.folder / "stranger"))
    with pytest.raises(DeviceError, match="login was refused") as failure:
        link_of(board, tmp_path, ssh=ssh).open()
    assert "ssh-copy-id" in failure.value.fix


def test_a_wrong_host_and_a_closed_port(board, tmp_path):
    with pytest.raises(DeviceError, match="no host of that name"):
        link_of(board, tmp_path, address=parse_address("nowhere.invalid")).open()
    with pytest.raises(LinkLost, match="nothing answers there on the ssh port"):
        link_of(board, tmp_path, address=parse_address(f"ssh://127.0.0.1:{free_port()}")).open()


def test_noise_of_a_login_shell_is_skipped(board, device_folder, model_file, pictures):
    class Noisy(SshLink):
        def start(self, script):
            return super().start(f"echo 'Welcome to the board'; {script}")

    link = Noisy(BOARD, folder=str(device_folder), ssh=board.ssh)
    with Worker(link) as worker:
        found = predictor(worker, model_file).predict(image_files(pictures[:2]))
    assert len(found) == 2


def test_a_dropped_connection_is_made_again(board, device_folder, model_file, pictures):
    notes: list[str] = []
    with Worker(link_of(board, device_folder), pauses_s=QUICK, note=notes.append) as worker:
        started = predictor(worker, model_file)
        started.predict(image_files(pictures[:3]))
        # The master goes, as when the network is cut.
        os.killpg(worker.device._link._master._native.pid, signal.SIGKILL)
        time.sleep(0.3)
        found = started.predict(image_files(pictures))
    assert notes
    assert worker.reconnections == 1
    assert parity(here(model_file, pictures), found).identical
    assert gone(device_folder)


def test_no_python_on_the_device(board, tmp_path):
    class Bare(SshLink):
        def start(self, script):
            return super().start(f"PATH=/nowhere; uname() {{ echo Linux; }}; {script}")

    with pytest.raises(DeviceError, match="no Python") as failure:
        Device(Bare(BOARD, folder=str(tmp_path / "x"), ssh=board.ssh)).open()
    assert "install python3" in failure.value.fix


def test_a_file_that_cannot_be_written(board, tmp_path):
    link = link_of(board, tmp_path)
    link.open()
    try:
        with pytest.raises(DeviceError, match="cannot be written there"):
            link.put(b"x" * 1000, "/proc/nothing/here")
        link.put(b"x" * 300_000, str(tmp_path / "a b" / "it's"))
        assert (tmp_path / "a b" / "it's").read_bytes() == b"x" * 300_000
    finally:
        link.close()


def test_a_full_disk_on_the_device(board, tmp_path):
    link = link_of(board, tmp_path)
    link.open()
    try:
        link.start = lambda script, start=link.start: start(
            script.replace("cat >", "cat > /dev/full; false >")
        )
        with pytest.raises(DeviceError, match="No space left") as failure:
            link.put(b"x" * 100_000, str(tmp_path / "file"))
        assert "free some space" in failure.value.fix
    finally:
        link.close()


def test_clean_removes_what_edgeq_keeps_and_nothing_else(board, device_folder):
    with Device(link_of(board, device_folder)):
        pass
    assert list((device_folder / "agent").iterdir())
    clean(link_of(board, device_folder))
    assert not device_folder.exists()
    device_folder.mkdir()
    (device_folder / "mine.txt").write_text("keep")
    with pytest.raises(DeviceError, match="cannot be removed"):
        clean(link_of(board, device_folder))
    assert (device_folder / "mine.txt").read_text() == "keep"
