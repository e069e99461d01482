"""The language between host and agent: one JSON object per line, bounded; raw bytes only behind a ``put``.

Host to agent: ``{"op": NAME, "id": N, ...}``. Agent to host: first a hello line, then
``{"id": N, "kind": KIND, ...}`` with the kinds ``part`` (some of the answer), ``progress``, ``result``
(the end of a request), ``error`` (the other end), and ``beat`` (id 0: the agent lives). A ``put`` is followed
by exactly ``size - offset`` raw bytes. Both sides end when they have heard nothing for `SILENCE_S`.

numpy is imported only where numbers are sent: a board that is not set up yet has none, and takes in files all
the same.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "BEAT_S",
    "LIST_CHUNK",
    "MAGIC",
    "MAX_LINE_BYTES",
    "PROTOCOL",
    "SILENCE_S",
    "array_from_text",
    "line_of",
    "message_of",
    "text_of_array",
]

MAGIC = "edgeq-agent"
PROTOCOL = 1
MAX_LINE_BYTES = 1 << 20
LIST_CHUNK = 4096
"""Most entries of a list in one line."""
BEAT_S = 3.0
SILENCE_S = 60.0
"""No line and no byte for so long: the other side is taken for dead."""


def line_of(message: dict[str, Any]) -> bytes:
    """The line of a message.

    Raises:
        ValueError: it holds NaN or infinity, or is over `MAX_LINE_BYTES`.
    """
    line = json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a message of {len(line)} bytes is over the limit of {MAX_LINE_BYTES}")
    return line


def message_of(line: bytes) -> dict[str, Any]:
    """The message of a line.

    Raises:
        ValueError: over the limit, not JSON, or not an object.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a line is over the limit of {MAX_LINE_BYTES} bytes")
    try:
        message = json.loads(line, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def text_of_array(values: npt.NDArray[Any]) -> str:
    """float32 values as base64 of their little-endian bytes: exact to the bit, unlike decimal text."""
    import numpy as np

    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def array_from_text(text: str) -> npt.NDArray[np.float32]:
    """float32 (n,) of what `text_of_array` made.

    Raises:
        ValueError: not such a text.
    """
    import numpy as np

    content = base64.b64decode(text.encode("ascii"), validate=True)
    if len(content) % 4:
        raise ValueError("not whole float32 values")
    return np.frombuffer(content, dtype="<f4").astype(np.float32)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
