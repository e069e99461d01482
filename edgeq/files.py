"""Outputs that appear whole or not at all: a temporary sibling first, a rename at the end.

Standard library only. Sizes are bytes; 1 MB is 10^6 bytes in messages.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from edgeq.errors import OutputError

__all__ = ["atomic_write", "check_free", "new_folder", "sha256_of", "size_mb"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_MARKER = b'"edgeq'
_MARKER_WITHIN_BYTES = 4096
_CHUNK_BYTES = 1 << 20


def check_free(path: Path, *, force: bool, folder: bool = True) -> None:
    """Check that ``path`` can become a new output; call it before any long work starts.

    Args:
        path: the folder or file to be made.
        force: an existing file (for a file), an empty folder or an earlier edgeq output (for a folder)
            may be replaced. Nothing else ever is: a mistyped ``-o`` must not cost somebody their files.
        folder: whether a folder or a file is to be made.

    Raises:
        OutputError: it is there and may not be replaced, or its parent is a file or not writable.
    """
    if os.path.lexists(path):
        if not force:
            raise OutputError(
                f"{path} exists already", fix="choose another output path, or replace it with --force"
            )
        if path.is_symlink() or not (_replaceable(path) if folder else path.is_file()):
            kind = "an edgeq output (no edgeq manifest.json in it)" if folder else "a plain file"
            raise OutputError(
                f"{path} exists and is not {kind}, so --force does not replace it",
                fix="remove it yourself, or choose another output path",
            )
    parent = _nearest_existing(path.absolute().parent)
    if not parent.is_dir():
        raise OutputError(
            f"{path} cannot be made: {parent} is not a folder", fix="choose another output path"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"{path} cannot be made: no permission to write in {parent}", fix="choose another output path"
        )


@contextlib.contextmanager
def new_folder(path: Path, *, force: bool, need_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` when the block ends well.

    When the block raises (Ctrl-C included) the temporary folder goes and nothing is left behind, not
    even parent folders made for it. What a killed run left beside ``path`` is cleared first.

    Args:
        path: the folder to be made.
        force: see `check_free`.
        need_bytes: how much will be written, where known: refused at once when the disk lacks it.

    Raises:
        OutputError: ``path`` may not be made or replaced, or the disk is full.
    """
    path = path.absolute()
    _clear_stale(path)
    check_free(path, force=force)
    if need_bytes is not None:
        _check_space(path, need_bytes)
    made_parents = _missing_parents(path)
    temporary: Path | None = None
    try:
        with _write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _sibling(path, "tmp")
            temporary.mkdir()
        with _full_disk(path, temporary):
            yield temporary
        with _write_errors(path):
            check_free(path, force=force)
            _swap_in(temporary, path)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for parent in made_parents:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all; an existing file is replaced in one step.

    Args:
        path: the file; its folder must exist.
        data: text is written as UTF-8 with the line ends that it has.

    Raises:
        OutputError: the disk is full or the place is not writable; what was there before stays.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = _sibling(path.absolute(), "tmp")
    with _write_errors(path, need_bytes=len(content)):
        try:
            # 0o666 less the umask, as a plain open() would give; mkstemp's 0o600 would surprise.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def size_mb(path: Path) -> float:
    """Of a file, or of all files in a folder, in 10^6 bytes; 0 where there is nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def _replaceable(folder: Path) -> bool:
    """Whether ``folder`` is empty or an earlier output: its manifest.json names edgeq near its start.

    The name alone would not do: browser extensions and web apps keep a manifest.json too.
    """
    if not folder.is_dir() or folder.is_mount():
        return False
    if not any(folder.iterdir()):
        return True
    manifest = folder / "manifest.json"
    if manifest.is_symlink() or not manifest.is_file():
        return False
    with manifest.open("rb") as file:
        return _MARKER in file.read(_MARKER_WITHIN_BYTES)


def _swap_in(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``; what was there comes back when that fails."""
    if not os.path.lexists(path):
        temporary.rename(path)
        return
    old = _sibling(path, "old")
    path.rename(old)
    try:
        temporary.rename(path)
    except BaseException:
        old.rename(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _host_tag() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _sibling(path: Path, kind: str) -> Path:
    """``.NAME.edgeq-KIND-HOST-PID-RANDOM``: tells whose it is, so a dead run's can be cleared."""
    return path.with_name(f".{path.name}.edgeq-{kind}-{_host_tag()}-{os.getpid()}-{secrets.token_hex(4)}")


def _clear_stale(path: Path) -> None:
    """Clear what killed runs on this host left beside ``path``; a live process's folder is not touched."""
    prefix = f".{path.name}.edgeq-"
    if not path.parent.is_dir():
        return
    for sibling in sorted(path.parent.iterdir()):
        if not sibling.name.startswith(prefix):
            continue
        parts = sibling.name[len(prefix) :].split("-")
        if len(parts) != 4 or parts[1] != _host_tag() or not parts[2].isdigit() or _alive(int(parts[2])):
            continue
        if parts[0] == "old" and not os.path.lexists(path):
            # Killed between the two renames of a replacement: the old output is still the valid one.
            sibling.rename(path)
        elif parts[0] in ("old", "tmp"):
            _remove(sibling)


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill would end the process there, so leftovers stay
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _nearest_existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _missing_parents(path: Path) -> tuple[Path, ...]:
    """Parents of ``path`` that do not exist yet, deepest first."""
    return tuple(parent for parent in path.parents if not parent.exists())


def _check_space(path: Path, need_bytes: int) -> None:
    parent = _nearest_existing(path.parent)
    free_bytes = shutil.disk_usage(parent).free
    if free_bytes < need_bytes:
        raise _full_error(path, need_bytes=need_bytes)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def _full_error(
    path: Path, *, need_bytes: int | None = None, written_bytes: int | None = None
) -> OutputError:
    parts = [f"{path} cannot be written: the disk is full"]
    if need_bytes is not None:
        parts.append(f"needed {_megabytes(need_bytes)}")
    if written_bytes is not None:
        parts.append(f"{_megabytes(written_bytes)} was written before it filled up, more is needed")
    with contextlib.suppress(OSError):
        free_bytes = shutil.disk_usage(_nearest_existing(path.absolute().parent)).free
        parts.append(f"{_megabytes(free_bytes)} free")
    return OutputError("; ".join(parts), fix="free some space, or write to another disk")


def _folder_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = Path(root, name).lstat()
                total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


@contextlib.contextmanager
def _full_disk(path: Path, temporary: Path) -> Iterator[None]:
    """Turn a full disk inside the block into an `OutputError`; other errors are the block's own."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _full_error(path, written_bytes=_folder_bytes(temporary)) from error


@contextlib.contextmanager
def _write_errors(path: Path, *, need_bytes: int | None = None) -> Iterator[None]:
    """Turn every OSError of the block, which only writes, into an `OutputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full_error(path, need_bytes=need_bytes) from error
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written: {reason}", fix="choose another output path") from error
