"""Numbers and names as text, the same in the terminal and in HTML; anything that is not known is a dash."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

__all__ = ["UNKNOWN", "accuracy_rows", "interval", "list_of_maps", "metrics_in", "number", "plain"]

UNKNOWN = "-"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
_METRICS = {
    "map50_95": "mAP 50-95",
    "map50": "mAP 50",
    "map75": "mAP 75",
    "top1": "top-1",
    "top5": "top-5",
}


def plain(value: object) -> str:
    """Text without control characters: names come from models and bundles, and terminals obey escapes."""
    return UNKNOWN if value is None else _CONTROL.sub("?", str(value))


def number(value: object, digits: int = 2, unit: str = "") -> str:
    """A number with fixed digits; a dash for None, NaN and what is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    # "-0.00" is a rounding, not a gain.
    return (text[1:] if float(text) == 0 and text.startswith("-") else text) + unit


def interval(value: object, digits: int = 2) -> str:
    """``low..high``; a dash where there is none."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return UNKNOWN
    low, high = number(value[0], digits), number(value[1], digits)
    return UNKNOWN if UNKNOWN in (low, high) else f"{low}..{high}"


def list_of_maps(value: object) -> tuple[Mapping[str, object], ...]:
    """The mappings in a list; empty for anything else, so that a malformed report shows less, not nothing."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(entry for entry in value if isinstance(entry, Mapping))


def metrics_in(rows: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Key and heading of each accuracy metric that a row tells."""
    return {key: head for key, head in _METRICS.items() if any(row.get(key) is not None for row in rows)}


def accuracy_rows(data: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
    """Rows of an accuracy report: its ``models`` list, or its mappings that hold a metric, by name."""
    if "models" in data:
        return list_of_maps(data["models"])
    rows: list[Mapping[str, object]] = []
    for name, entry in data.items():
        if isinstance(entry, Mapping) and ("map50_95" in entry or "top1" in entry):
            rows.append({"name": name, **entry})
    return tuple(rows)
