"""Flatbuffers, read with every offset checked: a damaged file is an error here, not a crash in native code.

Layout as in "FlatBuffer Internals" (https://flatbuffers.dev/internals/): a table starts with the signed
distance back to its vtable, which holds for each field the offset inside the table, 0 where it is absent;
vectors and strings are a count and the elements. All little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["Damaged", "Table", "root_table"]

MAX_ELEMENTS = 1 << 20
"""Tables in one vector; real models have thousands at most."""


class Damaged(ValueError):  # noqa: N818 (says what the file is)
    """An offset leads out of the file, or a count is absurd."""


class Table:
    """One table; fields by their number in the schema, counted from 0."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data, self._start = data, start
        vtable = start - _scalar(data, "<i", start)
        size = _scalar(data, "<H", vtable)
        self._size = _scalar(data, "<H", vtable + 2)
        if size < 4 or size % 2 or self._size < 4 or start + self._size > len(data):
            raise Damaged(f"table at {start} has no sensible size")
        span = _span(data, vtable + 4, size - 4)
        self._fields = struct.unpack(f"<{len(span) // 2}H", span)

    def scalar(self, field: int, kind: str, default: int = 0) -> int:
        """A number.

        Args:
            field: which.
            kind: of `struct`: ``i``, ``I``, ``b``, ``B``, ``Q``.
            default: where it is absent.
        """
        offset = self._offset(field, struct.calcsize(f"<{kind}"))
        return default if offset is None else _scalar(self._data, f"<{kind}", self._start + offset)

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return self._offset(field, 1) is not None

    def bytes(self, field: int) -> memoryview:
        """A vector of bytes, or a string; empty where it is absent."""
        place = self._vector(field)
        return self._data[:0] if place is None else _span(self._data, place[0], place[1])

    def text(self, field: int) -> str:
        """A string; empty where it is absent."""
        return str(self.bytes(field), "utf-8", "replace")

    def numbers(self, field: int, dtype: str) -> npt.NDArray[np.generic]:
        """A vector of numbers; empty where it is absent.

        Args:
            field: which.
            dtype: numpy's, such as ``<i4``.
        """
        place = self._vector(field)
        if place is None:
            return np.empty(0, np.dtype(dtype))
        return np.frombuffer(_span(self._data, place[0], place[1] * np.dtype(dtype).itemsize), dtype)

    def table(self, field: int) -> Table | None:
        """A table; None where it is absent."""
        offset = self._offset(field, 4)
        return None if offset is None else Table(self._data, _follow(self._data, self._start + offset))

    def tables(self, field: int) -> Iterator[Table]:
        """The tables of a vector."""
        place = self._vector(field)
        if place is None:
            return
        first, count = place
        if count > MAX_ELEMENTS:
            raise Damaged(f"a vector of {count} tables")
        _span(self._data, first, 4 * count)
        for index in range(count):
            yield Table(self._data, _follow(self._data, first + 4 * index))

    def _offset(self, field: int, size: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        if offset == 0:
            return None
        if offset + size > self._size:
            raise Damaged(f"field {field} of the table at {self._start} lies outside of it")
        return int(offset)

    def _vector(self, field: int) -> tuple[int, int] | None:
        """Where the first element lies, and how many there are."""
        offset = self._offset(field, 4)
        if offset is None:
            return None
        start = _follow(self._data, self._start + offset)
        return start + 4, _scalar(self._data, "<I", start)


def root_table(data: memoryview, identifier: bytes) -> Table:
    """The table that a file consists of.

    Raises:
        Damaged: it is not a flatbuffer with that identifier.
    """
    if bytes(data[4:8]) != identifier:
        raise Damaged(f"bytes 4 to 7 are {bytes(data[4:8])!r}, not {identifier!r}")
    return Table(data, _follow(data, 0))


def _span(data: memoryview, start: int, size: int) -> memoryview:
    if start < 0 or size < 0 or start + size > len(data):
        raise Damaged(f"{size} bytes at {start} are beyond the end, {len(data)} bytes")
    return data[start : start + size]


def _scalar(data: memoryview, kind: str, place: int) -> int:
    return int(struct.unpack(kind, _span(data, place, struct.calcsize(kind)))[0])


def _follow(data: memoryview, place: int) -> int:
    """Where the offset at a place leads."""
    return place + _scalar(data, "<I", place)
