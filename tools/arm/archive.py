"""An initial RAM disk: the "new ASCII" cpio format, as Linux's Documentation/driver-api/early-userspace says.

Written here rather than by ``cpio`` because every file must belong to root, whoever makes the archive.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"


def write_archive(out: BinaryIO, roots: Iterable[tuple[Path, str]]) -> None:
    """Write the trees one after another; where two have the same file, the later one counts.

    Args:
        out: opened for writing, at its start.
        roots: folders, and what each is called in the archive: ``""`` for its top, else as ``lib/modules``.
    """
    number = 0
    for root, name in roots:
        for path in [root, *sorted(root.rglob("*"))]:
            number += 1
            inside = "/".join(part for part in (name, *path.relative_to(root).parts) if part)
            _write_entry(out, path, inside or ".", number)
    _write_header(out, _TRAILER, inode=0, mode=0, mtime=0, size=0)


def _write_entry(out: BinaryIO, path: Path, name: str, number: int) -> None:
    found = path.lstat()
    mtime = int(found.st_mtime)
    if stat.S_ISLNK(found.st_mode):
        target = str(path.readlink()).encode()
        _write_header(out, name, inode=number, mode=found.st_mode, mtime=mtime, size=len(target))
        out.write(target)
        _pad(out, len(target))
    elif stat.S_ISREG(found.st_mode):
        _write_header(out, name, inode=number, mode=found.st_mode, mtime=mtime, size=found.st_size)
        with path.open("rb") as source:
            shutil.copyfileobj(source, out, 1 << 20)
        _pad(out, found.st_size)
    elif stat.S_ISDIR(found.st_mode):
        _write_header(out, name, inode=number, mode=found.st_mode, mtime=mtime, size=0)


def _write_header(out: BinaryIO, name: str, *, inode: int, mode: int, mtime: int, size: int) -> None:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name, check sum
    fields = (inode, mode, 0, 0, 1, mtime, size, 0, 0, 0, 0, len(encoded), 0)
    header = _MAGIC.encode() + b"".join(b"%08x" % field for field in fields)
    out.write(header + encoded)
    _pad(out, len(header) + len(encoded))


def _pad(out: BinaryIO, written: int) -> None:
    out.write(b"\0" * (-written % 4))
