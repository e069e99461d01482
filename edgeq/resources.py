"""Where the data that ships with edgeq lies: in the wheel, or in a checkout."""

from __future__ import annotations

from pathlib import Path

from edgeq.errors import UnavailableError

__all__ = ["data_folder"]

_PACKAGE = Path(__file__).parent
_CHECKOUT = {"targets": "targets", "demo": "calib_data/demo"}


def data_folder(name: str) -> Path:
    """Folder of shipped data.

    Args:
        name: ``targets`` or ``demo``.

    Raises:
        UnavailableError: the installation lacks it.
    """
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent / _CHECKOUT[name]):
        if folder.is_dir():
            return folder
    raise UnavailableError(
        f"this installation of edgeq lacks its {name!r} data",
        fix="reinstall it: pip install --force-reinstall edgeq",
    )
