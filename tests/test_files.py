import errno
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

import edgeq
from edgeq.errors import OutputError
from edgeq.files import atomic_write, check_free, new_folder, sha256_of, size_mb

CHECKOUT = str(Path(edgeq.__file__).parents[1])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make_output(path, text="old"):
    path.mkdir()
    (path / "manifest.json").write_text('{"format": "edgeq-bundle"}')
    (path / "model").write_text(text)


def test_folder_appears_only_at_the_end(tmp_path):
    target = tmp_path / "a" / "b" / "out"
    with new_folder(target, force=False) as folder:
        (folder / "model").write_text("x")
        assert not target.exists()
        assert folder.parent == target.parent
    assert names(target) == ["model"]
    assert names(target.parent) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_nothing(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "made" / "out", force=False) as folder:
        (folder / "half").write_text("x")
        raise error
    assert names(tmp_path) == []


def test_existing_is_refused_before_work(tmp_path):
    make_output(tmp_path / "out")
    with pytest.raises(OutputError, match="exists already") as caught:
        check_free(tmp_path / "out", force=False)
    assert "--force" in caught.value.fix
    with pytest.raises(OutputError), new_folder(tmp_path / "out", force=False):
        pytest.fail("the block must not start")
    check_free(tmp_path / "out", force=True)
    check_free(tmp_path / "other", force=False)


def test_force_replaces_an_output_of_ours_and_an_empty_folder(tmp_path):
    make_output(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for name in ("out", "empty"):
        with new_folder(tmp_path / name, force=True) as folder:
            (folder / "new").write_text("x")
        assert names(tmp_path / name) == ["new"]
    assert names(tmp_path) == ["empty", "out"]


def test_force_spares_what_is_not_ours(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_text("x")
    web = tmp_path / "web"
    web.mkdir()
    (web / "manifest.json").write_text('{"name": "a web app", "icons": []}')
    (tmp_path / "file").write_text("x")
    make_output(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("photos", "web", "file", "link"):
        with pytest.raises(OutputError, match="does not replace"):
            check_free(tmp_path / name, force=True)
    check_free(tmp_path / "file", force=True, folder=False)
    with pytest.raises(OutputError):
        check_free(photos, force=True, folder=False)


def test_failed_replacement_keeps_the_old(tmp_path):
    make_output(tmp_path / "out")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out", force=True) as folder:
        (folder / "model").write_text("new")
        raise RuntimeError
    assert (tmp_path / "out" / "model").read_text() == "old"


def test_failed_second_rename_brings_the_old_back(tmp_path, monkeypatch):
    make_output(tmp_path / "out")
    rename = Path.rename

    def failing(self, target):
        if ".edgeq-tmp-" in self.name:
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="Permission denied"), new_folder(tmp_path / "out", force=True):
        pass
    monkeypatch.undo()
    assert (tmp_path / "out" / "model").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is not a folder"):
        check_free(tmp_path / "file" / "out", force=False)


KILLED = """
import sys, time
from pathlib import Path
from edgeq.files import new_folder
with new_folder(Path(sys.argv[1]), force=False) as folder:
    (folder / "half").write_text("x")
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def writer(target):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(target)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": CHECKOUT},
    )
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_leftovers_of_a_killed_run_are_cleared_and_of_a_live_one_are_not(tmp_path):
    with writer(tmp_path / "out"):
        assert len(names(tmp_path)) == 1
        with new_folder(tmp_path / "out", force=False):
            assert len(names(tmp_path)) == 2
        assert len(names(tmp_path)) == 2
    (tmp_path / "out").rmdir()
    (tmp_path / ".out.edgeq-notes").mkdir()
    with new_folder(tmp_path / "out", force=False):
        pass
    assert names(tmp_path) == [".out.edgeq-notes", "out"]


def test_ctrl_c_in_a_real_process_leaves_nothing(tmp_path):
    with writer(tmp_path / "made" / "out") as process:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
    assert names(tmp_path) == []


def test_killed_between_the_two_renames_the_old_comes_back(tmp_path):
    with writer(tmp_path / "out"):
        (temporary,) = tmp_path.iterdir()
    make_output(tmp_path / temporary.name.replace("-tmp-", "-old-"))
    with pytest.raises(OutputError, match="exists already"), new_folder(tmp_path / "out", force=False):
        pass
    assert (tmp_path / "out" / "model").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_atomic_write_replaces_whole(tmp_path):
    path = tmp_path / "report.json"
    atomic_write(path, "one\n")
    atomic_write(path, b"two\n")
    assert path.read_bytes() == b"two\n"
    assert names(tmp_path) == ["report.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_atomic_write_keeps_the_old_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    atomic_write(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"disk is full; needed 3.0 MB; [\d.]+ MB free"):
        atomic_write(path, b"x" * 3_000_000)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_quota_in_the_block_is_a_full_disk_and_other_errors_are_not(tmp_path):
    with pytest.raises(OutputError, match=r"the disk is full; 1\.0 MB was written"):  # noqa: SIM117
        with new_folder(tmp_path / "out", force=False) as folder:
            (folder / "part").write_bytes(b"x" * 1_000_000)
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "out", force=False) as folder:
        (folder / "missing").read_text()
    assert names(tmp_path) == []


def test_space_is_checked_before_work(tmp_path):
    with pytest.raises(OutputError, match=r"needed 1000000000\.0 MB"):  # noqa: SIM117
        with new_folder(tmp_path / "out", force=False, need_bytes=10**15):
            pytest.fail("the block must not start")
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting needs root on Linux")
def test_a_really_full_disk(small_disk):
    with pytest.raises(OutputError, match="disk is full"):  # noqa: SIM117
        with new_folder(small_disk / "made" / "out", force=False) as folder:
            for i in range(40):
                (folder / str(i)).write_bytes(b"x" * 100_000)
    assert names(small_disk) == []
    with pytest.raises(OutputError, match=r"needed 2.0 MB; 1.0 MB free"):
        atomic_write(small_disk / "file", b"x" * 2_000_000)
    assert names(small_disk) == []


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_read_only_place(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        check_free(tmp_path / "out", force=False)


def test_sizes_of_files_and_folders(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1500)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b").write_bytes(b"x" * 500)
    assert size_mb(tmp_path / "a") == 0.0015
    assert size_mb(tmp_path) == 0.002
    assert size_mb(tmp_path / "nowhere") == 0.0
