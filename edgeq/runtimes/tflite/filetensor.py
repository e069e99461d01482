"""One tensor of a ``.tflite`` file, checked: type, shape, data and scales. Device side: numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.runtimes.tflite.flatbuffer import Damaged, Table

__all__ = ["FileTensor", "file_tensor"]

_MAX_RANK = 32
_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool", 7: "int16",
    8: "complex64", 9: "int8", 10: "float64", 11: "complex128", 12: "uint64", 13: "resource", 14: "variant",
    15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16", 19: "int2", 20: "uint4",
}  # fmt: skip
"""TensorType -> numpy's name, or the schema's where numpy has none."""
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "bfloat16": 16}
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int4": (-8, 7)}
_UNSIZED = frozenset({"string", "resource", "variant"})


@dataclass(frozen=True)
class FileTensor:
    """One tensor of the main subgraph."""

    name: str
    shape: tuple[int, ...]
    """As stored; a dimension that is not known is 1 here."""
    signature: tuple[int, ...]
    """The same with -1 for what is not known; empty where all is."""
    dtype: str
    scales: tuple[float, ...]
    """Empty: not quantised; one: per tensor; more: per channel along ``axis``."""
    zero_points: tuple[int, ...]
    axis: int
    constant: bool
    """Its data lies in the file."""

    @property
    def dynamic(self) -> bool:
        """Whether a dimension other than the batch is not known."""
        return any(size < 0 for size in self.signature[1:])


def file_tensor(entry: Table, buffers: Sequence[memoryview]) -> FileTensor:
    """The tensor of a table, checked against the buffers.

    Raises:
        Damaged: it contradicts itself, or its data is not there.
    """
    shape = tuple(int(size) for size in entry.numbers(0, "<i4"))
    dtype = _DTYPES.get(entry.scalar(1, "b"))
    buffer = entry.scalar(2, "I")
    if dtype is None or buffer >= len(buffers) or len(shape) > _MAX_RANK or min(shape, default=0) < 0:
        raise Damaged(f"tensor {entry.text(3)!r} has a type, shape or buffer that there is not")
    held = len(buffers[buffer]) if buffer else 0
    if held and dtype not in _UNSIZED and not entry.has(6) and held * 8 < math.prod(shape) * _bits(dtype):
        raise Damaged(f"tensor {entry.text(3)!r} of {list(shape)} {dtype} has {held} bytes only")
    scales, zeros, axis = _quantization(entry.table(4), shape)
    low, high = _LIMITS.get(dtype, (-(2**31), 2**31 - 1))
    if any(not low <= zero <= high for zero in zeros):
        raise Damaged(f"tensor {entry.text(3)!r} has a zero point beyond {dtype}")
    signature = tuple(int(size) for size in entry.numbers(7, "<i4"))
    return FileTensor(entry.text(3), shape, signature, dtype, scales, zeros, axis, held > 0)


def _bits(dtype: str) -> int:
    return _BITS[dtype] if dtype in _BITS else np.dtype(dtype).itemsize * 8


def _quantization(
    entry: Table | None, shape: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    if entry is None:
        return (), (), 0
    scales, zeros = np.asarray(entry.numbers(2, "<f4"), np.float64), entry.numbers(3, "<i8")
    axis = entry.scalar(6, "i")
    if not np.all(np.isfinite(scales) & (scales >= 0)) or len(zeros) not in (len(scales), 1, 0):
        raise Damaged("a tensor's scales are no numbers, or not as many as its zero points")
    if len(scales) > 1 and (not 0 <= axis < len(shape) or shape[axis] != len(scales)):
        raise Damaged(f"{len(scales)} scales along axis {axis} of a tensor of {list(shape)}")
    return tuple(float(s) for s in scales), tuple(int(z) for z in zeros) or (0,) * len(scales), axis
