"""Plain JSON data from edgeq's own: dataclasses, enums, numpy, paths; numpy and the standard library only."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

__all__ = ["dumps", "to_jsonable"]

# Line breaks inside JSON strings are escaped, so this never matches within one.
_NUMBER_LIST = re.compile(r"\[\n([-+0-9.eE,\s]+)\n\s*\]")


def to_jsonable(value: object) -> Any:
    """``value`` as dicts, lists, strings, numbers, booleans and None.

    A dataclass gives what its ``to_json`` says, or its fields in order. NaN and infinities become None:
    JSON has neither, and "not a number" is "not known" to every reader.

    Raises:
        TypeError: something that has no plain form; names its type.
    """
    if isinstance(value, Enum):
        return to_jsonable(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, PurePath):
        return value.as_posix()
    return _container(value)


def dumps(value: object) -> str:
    """JSON text with a line end; the same data gives the same text (keys sorted).

    Lists of numbers stay on one line: thousands of raw samples would else be thousands of lines.
    """
    text = json.dumps(to_jsonable(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return _NUMBER_LIST.sub(lambda match: "[" + " ".join(match[1].split()) + "]", text) + "\n"


def _container(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = getattr(value, "to_json", None)
        if callable(own):
            return to_jsonable(own())
        return {entry.name: to_jsonable(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): to_jsonable(entry) for key, entry in value.items()}
    if isinstance(value, Set):
        return sorted((to_jsonable(entry) for entry in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [to_jsonable(entry) for entry in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _key(key: object) -> str:
    plain = to_jsonable(key)
    if isinstance(plain, (list, dict)):
        raise TypeError(f"{type(key).__name__} cannot be the key of a JSON object")
    return plain if isinstance(plain, str) else json.dumps(plain)
