"""The wheel that executes ``.tflite`` files: ``ai-edge-litert``, or ``tflite-runtime`` 2.14 on old boards.

Both offer the same ``Interpreter``. The last ``tflite-runtime`` needs Python 3.11 or older and numpy 1.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from edgeq.errors import UnavailableError

__all__ = ["Wheel", "delegated", "import_wheel", "native_message", "quiet_native_log"]

_WHEELS = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
_INSTALL = 'pip install "edgeq[tflite]"'
_DELEGATE = "DELEGATE"
_DETAIL_CHARS = 300
_SOURCE_PLACE = re.compile(r"^\S+\.(?:cc|h):\d+ ")
_log_lock = threading.Lock()


@dataclass(frozen=True)
class Wheel:
    """What was imported."""

    package: str
    version: str
    module: Any
    """Has ``Interpreter`` and ``OpResolverType``."""


def import_wheel() -> Wheel:
    """The maintained wheel, else the old one.

    Raises:
        UnavailableError: neither is installed, or its native library does not load here.
    """
    reasons = []
    for package, module in _WHEELS.items():
        try:
            found = importlib.import_module(module)
            return Wheel(package, metadata.version(package), found)
        except metadata.PackageNotFoundError:
            return Wheel(package, "unknown", found)
        # Built for numpy 1, tflite-runtime raises more than ImportError beside numpy 2.
        except (ImportError, AttributeError, SystemError, OSError) as error:
            reasons.append(f"{package}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise UnavailableError(f"TFLite cannot be loaded ({'; '.join(reasons)})", fix=_INSTALL)


def delegated(operators: Sequence[Mapping[str, Any]]) -> tuple[frozenset[int], int]:
    """Operators that a delegate has taken over, and in how many pieces.

    A delegate's piece is one more operator at the end of the list; what lies between its inputs and outputs
    runs inside of it.

    Args:
        operators: the interpreter's ``_get_ops_details()`` after ``allocate_tensors``.
    """
    pieces = [entry for entry in operators if entry["op_name"] == _DELEGATE]
    producers = {
        int(tensor): number
        for number, entry in enumerate(operators)
        if entry["op_name"] != _DELEGATE
        for tensor in entry["outputs"]
    }
    taken: set[int] = set()
    for piece in pieces:
        known = {int(tensor) for tensor in piece["inputs"]}
        waiting = [int(tensor) for tensor in piece["outputs"]]
        while waiting:
            tensor = waiting.pop()
            if tensor in known:
                continue
            known.add(tensor)
            if tensor in producers:
                taken.add(producers[tensor])
                waiting += [int(value) for value in operators[producers[tensor]]["inputs"]]
    return frozenset(taken), len(pieces)


def native_message(error: Exception) -> str:
    """The first line of what the native code says, without its source file, at a readable length."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = _SOURCE_PLACE.sub("", text)
    return text if len(text) <= _DETAIL_CHARS else text[:_DETAIL_CHARS] + "..."


@contextlib.contextmanager
def quiet_native_log() -> Iterator[None]:
    """Keep the runtime's "INFO:" lines off stderr; it has no switch for them. All else is let through."""
    with _log_lock, tempfile.TemporaryFile() as kept:
        try:
            sys.stderr.flush()
            saved = os.dup(2)
        except (OSError, ValueError, AttributeError):  # no stderr to speak of
            yield
            return
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            kept.seek(0)
            for line in kept.read().decode("utf-8", "replace").splitlines():
                if not line.startswith(("INFO:", "ERROR:")):  # errors come as exceptions too
                    sys.stderr.write(line + "\n")
