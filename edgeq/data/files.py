"""Finding the files of a data set: listing folders, staying inside them, reading small text files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from pydantic import ValidationError

from edgeq.data.images import IMAGE_SUFFIXES
from edgeq.errors import DataError

__all__ = [
    "absolute",
    "first_holding",
    "first_problem",
    "inside",
    "key_of",
    "list_images",
    "listed",
    "no_split",
    "read_text",
    "require_files",
]

_SHOWN = 3
_PROBED = 20


def absolute(path: str | os.PathLike[str]) -> Path:
    """Absolute path without ``.`` and ``..``; symbolic links stay as they are."""
    # Not Path.resolve: a linked "images" folder must keep its name for the labels rule.
    return Path(os.path.normpath(Path(path).absolute()))


def key_of(path: Path, root: Path) -> str:
    """Path relative to the root, with forward slashes; absolute where there is no relative one."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        pass
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:  # another drive on Windows
        return path.as_posix()


def no_split(where: Path, split: str, known: Sequence[str]) -> DataError:
    """The error of a data set, a file or a folder, that has other splits than the one asked for."""
    if not known:
        return DataError(
            f"{where} has no split {split!r}; it has none (train:, val:, test:)", fix="add  val: images/val"
        )
    return DataError(
        f"{where} has no split {split!r}; it has {', '.join(known)}",
        fix=f"add it, or name another: --split {known[0]}, of quantize --calib-split and --eval-split",
    )


def list_images(folder: Path) -> list[Path]:
    """Every image under the folder, recursively, sorted; hidden files and folders are left out.

    Raises:
        DataError: the folder cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for base, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(base)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found.extend(Path(base, name) for name in names if is_image_name(name))
    return sorted(found, key=lambda path: path.as_posix())


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def inside(folder: Path, name: str, *, source: str) -> Path:
    """The file of that name inside the folder.

    Args:
        folder: where it must lie.
        name: relative path as written in a label file, from whoever wrote it.
        source: file (and place) that names it, for the message.

    Raises:
        DataError: the name is empty, absolute or climbs out of the folder.
    """
    normal = name.replace("\\", "/")
    escapes = PurePosixPath(normal).is_absolute() or PureWindowsPath(name).drive or "\0" in name
    if not normal.strip() or escapes or ".." in PurePosixPath(normal).parts:
        raise DataError(
            f"{source} names the image {name!r}, which is not a path inside {folder}",
            fix="file names must be relative to the images folder and stay inside it",
        )
    return folder / normal


def first_holding(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """The first of the folders that holds one of the first few files named."""
    probes = [name.replace("\\", "/") for name in names[:_PROBED]]
    for folder in folders:
        if folder.is_dir() and any((folder / name).is_file() for name in probes):
            return folder
    return None


def require_files(paths: Sequence[Path], *, source: str) -> None:
    """Returns if all of the files exist.

    Raises:
        DataError: some do not; names the first few and the count.
    """
    missing = [str(path) for path in paths if not os.path.isfile(path)]  # noqa: PTH113 (3x faster)
    if missing:
        raise DataError(
            f"{source} names {len(missing)} of {len(paths)} images that do not exist: "
            f"{listed(missing, _SHOWN)}",
            fix="put the images there, name their folder, or remove their entries",
        )


def read_text(path: Path, *, limit_mb: int = 16) -> str:
    """Text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: missing, over the limit, unreadable or not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit_mb * 1_000_000 + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit_mb * 1_000_000:
        raise DataError(f"{path} is over {limit_mb} MB, more than such a file ever needs")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})", fix="save it as UTF-8") from error


def listed(items: Sequence[str], shown: int = _SHOWN) -> str:
    """The first few items and how many more there are."""
    more = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {more} more" if more > 0 else "")


def first_problem(error: ValidationError) -> str:
    """What a validation error found first, in words for a user: ``annotations[17].bbox: ...``."""
    errors = error.errors(include_url=False, include_context=False)
    # Where several types are allowed, each gives an error; the one that got deepest is the telling one.
    depth = 2 if len(errors[0]["loc"]) > 1 and isinstance(errors[0]["loc"][1], int) else 1
    alternatives = [e for e in errors if e["loc"][:depth] == errors[0]["loc"][:depth]]
    first = max(alternatives, key=lambda e: len(e["loc"]))
    place = ""
    for part in first["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not part.startswith(("list[", "dict[", "function-")) and part not in (
            "str",
            "int",
            "float",
            "[key]",
        ):
            place += f".{part}" if place else part
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "json_invalid":
        return first["msg"][0].lower() + first["msg"][1:]
    value = repr(first.get("input"))
    value = value if len(value) <= 40 else value[:37] + "..."
    message = first["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    return f"{place or 'the file'}: {message[0].lower()}{message[1:]}, not {value}"
