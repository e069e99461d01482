"""Files on the device by the SHA-256 of their content: received in pieces, checked, kept within a limit.

``blobs/<sha256>`` is whole and was checked when it came; ``partial/<sha256>`` is what a cut transfer left,
and is gone on with. The least recently used blobs go when there would be more than the limit. A content
that is used is checked again by who uses it: a card in a board may rot.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from edgeq.errors import BundleError, OutputError, UnavailableError

__all__ = ["BlobLost", "DiskFull", "Store"]

LIMIT_BYTES = 2 << 30
RESERVE_BYTES = 64 << 20
"""Never the last bytes of a disk: a board without any does not boot."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(OutputError):  # noqa: N818 (named for what it is)
    """The device has no room."""


class BlobLost(UnavailableError):  # noqa: N818 (named for what it is)
    """A file that the host counts on is not here, or damaged: it has to be sent again."""


class Store:
    """The files under one folder of the device.

    Args:
        root: usually ``~/.edgeq``.
        limit_bytes: of all blobs together.
    """

    def __init__(self, root: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.root = root
        self._blobs = root / "store" / "blobs"
        self._partial = root / "store" / "partial"
        self._limit_bytes = limit_bytes
        self._pinned: set[str] = set()
        for folder in (self._blobs, self._partial):
            folder.mkdir(parents=True, exist_ok=True)

    def missing(self, wanted: Iterable[tuple[str, int]]) -> list[tuple[int, int]]:
        """Positions of what is not here, with the bytes that an earlier transfer left of it.

        What is named is not evicted any more while this agent runs.

        Args:
            wanted: SHA-256 and size in bytes of each.
        """
        out: list[tuple[int, int]] = []
        for position, (sha256, size) in enumerate(wanted):
            path = self._blobs / _plain(sha256)
            self._pinned.add(sha256)
            if _size(path) == size:
                os.utime(path)
                continue
            left = _size(self._partial / sha256)
            out.append((position, left if left is not None and 0 < left <= size else 0))
        return out

    def receive(self, sha256: str, size: int, offset: int, pieces: Iterator[bytes]) -> None:
        """Take in the bytes from ``offset`` on; the file is kept only when it has the right content.

        Raises:
            DiskFull: no room; what there was room for is kept for later.
            BlobLost: another content came, or the part that should be here is not.
        """
        target, partial = self._blobs / _plain(sha256), self._partial / sha256
        self._make_room(size - offset)
        digest = hashlib.sha256()
        try:
            with partial.open("r+b" if offset else "ab") as file:
                _only_writer(file, sha256)
                if not offset:
                    file.truncate(0)
                if offset:
                    _hash_prefix(file, digest, offset, sha256)
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                # Renamed while it is locked: whoever comes next finds it whole.
                whole = digest.hexdigest() == sha256
                if whole:
                    partial.replace(target)
        except FileNotFoundError as error:
            raise BlobLost(f"the part of {sha256[:12]} that was sent before is gone") from error
        except OSError as error:
            if error.errno in _FULL:
                raise DiskFull(f"no room on the device for {size} bytes", fix=_ROOM) from error
            raise
        if not whole:
            partial.unlink(missing_ok=True)
            raise BlobLost(f"{sha256[:12]} arrived with another content than announced")

    def path(self, sha256: str) -> Path:
        """A blob's file, its content not checked.

        Raises:
            BlobLost: it is not here.
        """
        path = self._blobs / _plain(sha256)
        if not path.is_file():
            raise BlobLost(f"{sha256[:12]} is not on the device")
        return path

    def read(self, sha256: str) -> bytes:
        """A blob's content, checked.

        Raises:
            BlobLost: it is not here, or damaged (and then removed).
        """
        path = self.path(sha256)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            path.unlink(missing_ok=True)
            raise BlobLost(f"{sha256[:12]} was damaged on the device")
        return content

    def drop(self, sha256: str) -> None:
        """Remove a blob that turned out to be damaged."""
        (self._blobs / _plain(sha256)).unlink(missing_ok=True)

    def place(self, sha256: str, target: Path) -> None:
        """A blob under another name: a hard link where the file system has them, else a copy."""
        source = self.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    @property
    def size_bytes(self) -> int:
        """Of all blobs."""
        return sum(size for path in self._blobs.iterdir() if (size := _size(path)) is not None)

    def _make_room(self, need_bytes: int) -> None:
        """Evict the least recently used until so much more may come.

        Raises:
            DiskFull: the disk has not got it.
        """
        entries = []
        total = need_bytes
        for path in self._blobs.iterdir():
            status = path.stat()
            total += status.st_size
            if path.name not in self._pinned:
                entries.append((status.st_mtime, status.st_size, path))
        for _, size, path in sorted(entries):
            if total <= self._limit_bytes and self._free_bytes() >= need_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        if self._free_bytes() < need_bytes:
            free_mb = (self._free_bytes() + RESERVE_BYTES) / 1e6
            raise DiskFull(
                f"no room on the device: {need_bytes / 1e6:.1f} MB are to come, {free_mb:.0f} MB are free, "
                f"of which {RESERVE_BYTES / 1e6:.0f} MB are left alone",
                fix=_ROOM,
            )

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._blobs).free - RESERVE_BYTES


_ROOM = "free some space on the device; 'edgeq device clean' removes what edgeq keeps there"


def _plain(sha256: str) -> str:
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BundleError(f"{str(sha256)[:80]!r} is no SHA-256")
    return sha256


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _only_writer(file: IO[bytes], sha256: str) -> None:
    """Raise BlobLost where another agent on this device receives the same file just now."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise BlobLost(f"{sha256[:12]} is being received by another agent here") from error


def _hash_prefix(file: object, digest: object, offset: int, sha256: str) -> None:
    """Hash the first ``offset`` bytes and cut the rest off."""
    left = offset
    while left:
        piece = file.read(min(1 << 20, left))  # type: ignore[attr-defined]
        if not piece:
            raise BlobLost(f"the part of {sha256[:12]} that was sent before is shorter than thought")
        digest.update(piece)  # type: ignore[attr-defined]
        left -= len(piece)
    file.truncate(offset)  # type: ignore[attr-defined]
    file.seek(offset)  # type: ignore[attr-defined]
