"""Class names from a text file."""

from __future__ import annotations

from pathlib import Path

from edgeq.errors import SpecError

__all__ = ["read_class_names"]


def read_class_names(path: Path) -> tuple[str, ...]:
    """One name per line, blank lines at the end left out.

    Raises:
        SpecError: not readable as UTF-8 text, empty, or with a blank line between names.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SpecError(
            f"the class names in {path} cannot be read: {error.strerror}", fix="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text", fix="write one class name per line") from error
    names = tuple(line.strip() for line in lines)
    while names and not names[-1]:
        names = names[:-1]
    if not names or "" in names:
        what = "is empty" if not names else f"has no name in line {names.index('') + 1}"
        raise SpecError(f"{path} {what}", fix="write one class name per line, in the order of the class ids")
    return names
