"""From the text of a flag to its value.

The vocabulary's enums are looked up when a flag is given, so that ``edgeq --help`` need not load them.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from enum import Enum
from typing import Any

import typer

__all__ = ["choice", "duration_s", "levels", "size_px", "spreads", "strides"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def choice(where: str) -> Callable[[Any], Any]:
    """Parser of an enum's values.

    Args:
        where: ``module:Enum``; imported when a value has to be parsed.
    """

    def parse(text: Any) -> Any:
        module, _, name = where.partition(":")
        kind: type[Enum] = getattr(importlib.import_module(module), name)
        if isinstance(text, kind):
            return text
        try:
            return kind(str(text).lower())
        except ValueError:
            raise typer.BadParameter(f"{text!r} is none of {', '.join(e.value for e in kind)}") from None

    return parse


def duration_s(text: Any) -> float:
    """Seconds of ``10s``, ``500ms``, ``2m`` or a plain number of seconds."""
    found = _DURATION.fullmatch(str(text).strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a duration such as 10s, 500ms or 2m")
    seconds = float(found[1]) * _SECONDS[found[2] or "s"]
    if not 0 < seconds <= 24 * 3600:
        raise typer.BadParameter(f"{text!r} is not between 0 and 24 hours")
    return seconds


def _numbers(text: Any, counts: tuple[int, ...]) -> list[float]:
    parts = [part for part in re.split(r"[\s,x]+", str(text).strip().lower()) if part]
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) not in counts or not all(math.isfinite(value) for value in values):
        raise typer.BadParameter(f"{text!r} is not {' or '.join(map(str, counts))} numbers")
    return values


def size_px(text: Any) -> tuple[int, int]:
    """Height and width of ``640`` or ``480x640``."""
    values = _numbers(text, (1, 2))
    if any(value != int(value) or not 0 < value <= 16384 for value in values):
        raise typer.BadParameter(f"{text!r} is not a size in pixels such as 640 or 480x640 (height x width)")
    return int(values[0]), int(values[-1])


def levels(text: Any) -> tuple[float, float, float]:
    """Three numbers of ``0`` or ``123.7,116.3,103.5``."""
    values = _numbers(text, (1, 3)) * 3
    return values[0], values[1], values[2]


def spreads(text: Any) -> tuple[float, float, float]:
    """The same, all above 0."""
    values = levels(text)
    if min(values) <= 0:
        raise typer.BadParameter(f"{text!r} is not above 0")
    return values


def strides(text: Any) -> tuple[int, ...]:
    """Whole numbers of ``8,16,32``."""
    values = _numbers(text, (1, 2, 3, 4, 5, 6))
    if any(value != int(value) or value < 1 for value in values):
        raise typer.BadParameter(f"{text!r} are not strides such as 8,16,32")
    return tuple(int(value) for value in values)
