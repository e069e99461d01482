"""coremltools, imported when it is used and without its remarks about what Linux lacks."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from types import ModuleType

from edgeq.errors import UnavailableError

__all__ = ["import_coremltools", "predicts_here"]


def import_coremltools() -> ModuleType:
    """The module.

    Raises:
        UnavailableError: it is not installed, or does not start.
    """
    log = logging.getLogger("coremltools")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            import coremltools
    except ImportError as error:
        raise UnavailableError(
            f"coremltools cannot be imported: {error}", fix='pip install "edgeq[coreml]"'
        ) from error
    finally:
        log.setLevel(level)
    module: ModuleType = coremltools
    return module


def predicts_here() -> bool:
    """Whether Core ML itself is here: it is part of macOS."""
    return sys.platform == "darwin"
