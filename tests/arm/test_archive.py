"""The board's disk, read back by an independent parser."""

from __future__ import annotations

import io
import stat
from pathlib import Path

from tools.arm.archive import write_archive


def _read(archive: bytes) -> dict[str, tuple[int, int, bytes]]:
    """Mode, owner and content by name; a later entry replaces an earlier one, as in the kernel."""
    found, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, owner, size, name_size = fields[1], fields[2], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = at + (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, owner, archive[start : start + size])
        at = start + (size + 3) // 4 * 4


def test_trees_are_laid_over_each_other_and_belong_to_root(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "usr/bin").mkdir(parents=True)
    (first / "bin").symlink_to("usr/bin")
    (first / "usr/bin/tool").write_bytes(b"12345")
    (first / "usr/bin/tool").chmod(0o4755)
    (first / "usr/note").write_bytes(b"old")
    (second / "usr").mkdir(parents=True)
    (second / "usr/note").write_bytes(b"new!")
    out = io.BytesIO()
    write_archive(out, [(first, ""), (second, "")])
    found = _read(out.getvalue())
    assert found["usr/bin/tool"] == (stat.S_IFREG | 0o4755, 0, b"12345")
    assert found["usr/note"][2] == b"new!"
    assert stat.S_ISLNK(found["bin"][0])
    assert found["bin"][2] == b"usr/bin"
    assert stat.S_ISDIR(found["usr"][0])
    assert {owner for _, owner, _ in found.values()} == {0}
    assert len(out.getvalue()) % 4 == 0
