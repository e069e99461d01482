"""What calibration observed, tensor by tensor; independent of target, scheme and recipe."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from edgeq.errors import InputError
from edgeq.quantize.histogram import Histogram, merge_histograms
from edgeq.types import Float32Array

__all__ = ["ChannelStatistics", "Statistics", "TensorStatistics", "merge_statistics"]

_SCHEMA = 1
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, BadZipFile, zlib.error)


@dataclass(frozen=True)
class ChannelStatistics:
    """Per channel (axis 1) over all images; each (c,)."""

    low: Float32Array
    high: Float32Array
    mean_low: Float32Array
    """Mean over images of the per-image minimum."""
    mean_high: Float32Array


@dataclass(frozen=True)
class TensorStatistics:
    """Range, per-image extremes and histogram of one tensor."""

    image_low: Float32Array
    """(images,) minimum in each image, in calibration order."""
    image_high: Float32Array
    """(images,) maximum in each image."""
    histogram: Histogram
    """Of a regular subset of the positions where the tensor is large; the extremes are exact."""
    channels: ChannelStatistics | None
    """None where axis 1 is not a channel axis."""

    @property
    def low(self) -> float:
        """Minimum over all images."""
        return float(np.min(self.image_low))

    @property
    def high(self) -> float:
        """Maximum over all images."""
        return float(np.max(self.image_high))


@dataclass(frozen=True)
class Statistics:
    """Statistics of every float tensor of a float model over a calibration set."""

    tensors: Mapping[str, TensorStatistics]
    image_count: int

    def to_bytes(self, *, compress: bool = True) -> bytes:
        """An ``.npz`` without pickles."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        index: list[dict[str, Any]] = []
        for number, (name, tensor) in enumerate(self.tensors.items()):
            histogram = tensor.histogram
            entry: dict[str, Any] = {"name": name, "exponent": histogram.exponent, "start": histogram.start}
            arrays[f"{number}.images"] = np.stack([tensor.image_low, tensor.image_high])
            arrays[f"{number}.counts"] = histogram.counts
            if tensor.channels is not None:
                arrays[f"{number}.channels"] = np.stack(list(vars(tensor.channels).values()))
            index.append(entry)
        head = {"schema": _SCHEMA, "image_count": self.image_count, "tensors": index}
        buffer = io.BytesIO()
        save = np.savez_compressed if compress else np.savez
        save(buffer, index=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Statistics:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            InputError: not statistics, damaged, or of another schema.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                head = json.loads(arrays["index"].tobytes())
                if head["schema"] != _SCHEMA:
                    raise ValueError(f"schema {head['schema']}, this edgeq reads {_SCHEMA}")
                tensors = {
                    entry["name"]: _tensor(entry, arrays, n) for n, entry in enumerate(head["tensors"])
                }
                return cls(tensors, int(head["image_count"]))
        except _DAMAGED as error:
            raise InputError(
                f"not readable as calibration statistics: {error}", fix="calibrate again"
            ) from error


def merge_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of all the images of the parts, in their order, as if observed in one go."""
    first, *others = parts
    if not others:
        return first
    tensors = {}
    for name in first.tensors:
        pieces = [part.tensors[name] for part in parts]
        weights = np.asarray([part.image_count for part in parts], np.float64)
        histogram = pieces[0].histogram
        for piece in pieces[1:]:
            histogram = merge_histograms(histogram, piece.histogram)
        channels = [piece.channels for piece in pieces if piece.channels is not None]
        tensors[name] = TensorStatistics(
            np.concatenate([piece.image_low for piece in pieces]),
            np.concatenate([piece.image_high for piece in pieces]),
            histogram,
            _merge_channels(channels, weights) if len(channels) == len(pieces) else None,
        )
    return Statistics(tensors, sum(part.image_count for part in parts))


def _merge_channels(
    parts: Sequence[ChannelStatistics], weights: npt.NDArray[np.float64]
) -> ChannelStatistics:
    def mean(field: str) -> Float32Array:
        rows = np.stack([getattr(part, field) for part in parts])
        return np.asarray(weights @ rows / weights.sum(), np.float32)

    return ChannelStatistics(
        low=np.stack([part.low for part in parts]).min(axis=0),
        high=np.stack([part.high for part in parts]).max(axis=0),
        mean_low=mean("mean_low"),
        mean_high=mean("mean_high"),
    )


def _tensor(entry: dict[str, Any], arrays: Any, number: int) -> TensorStatistics:
    low, high = arrays[f"{number}.images"]
    histogram = Histogram(int(entry["exponent"]), int(entry["start"]), arrays[f"{number}.counts"])
    key = f"{number}.channels"
    channels = ChannelStatistics(*arrays[key]) if key in arrays else None
    return TensorStatistics(low, high, histogram, channels)
