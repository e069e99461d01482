"""What the base install lacks, said with the command that brings it."""

from __future__ import annotations

import importlib.util

from edgeq.errors import UnavailableError

__all__ = ["HOST_MODULES", "require_host"]

HOST_MODULES = ("onnx", "onnx_ir", "faster_coco_eval")


def require_host(what: str) -> None:
    """Return if the ``host`` extra is installed.

    Args:
        what: the work that needs it, for the message.

    Raises:
        UnavailableError: it is not.
    """
    missing = [name for name in HOST_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(
            f"{what} needs the host extra of edgeq, which is not installed here (no {', '.join(missing)})",
            fix='pip install "edgeq[host]"',
        )
