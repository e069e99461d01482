"""Calibration: run the float model over images once and record what every tensor held.

Nothing is kept of an image but its extremes, so memory grows with (tensors x bins) and not with the
number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from edgeq.errors import CalibrationError
from edgeq.quantize.histogram import Histogram, merge_histograms
from edgeq.quantize.ort import cpu_session
from edgeq.quantize.statistics import ChannelStatistics, Statistics, TensorStatistics
from edgeq.types import Float32Array

__all__ = ["KNOWN_RANGES", "MOVES_DATA", "Observer", "observed_values", "session_with_outputs"]

_SUBSET = 1 << 12
"""About so many values per tensor and image go into the histogram; the extremes use them all."""

_COUNTED_TOGETHER = 8
"""Values of so many images are counted at a time: a histogram of a few thousand costs mostly its making."""

KNOWN_RANGES = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0)}
"""Op types whose output range needs no observing."""

# Outputs of these are rearrangements of their inputs: their statistics would say nothing new.
MOVES_DATA = frozenset(
    {
        "Flatten",
        "Identity",
        "MaxPool",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


def observed_values(model: ir.Model) -> list[ir.Value]:
    """Float tensors that calibration records: the inputs and everything that is computed."""
    constant = set(model.graph.initializers)
    values = [value for value in model.graph.inputs if value.name not in constant]
    for node in model.graph:
        if node.op_type not in MOVES_DATA and node.op_type not in KNOWN_RANGES:
            values += [value for value in node.outputs if value.dtype in (ir.DataType.FLOAT, None)]
    return values


class Observer:
    """Runs one float model over images and records; several threads may use it, each for its own images."""

    def __init__(self, model: ir.Model) -> None:
        """Load the model with all its tensors as outputs.

        Args:
            model: normalised float model with one input; not changed.
        """
        wanted = [
            value.name for value in observed_values(model) if value.producer() is not None and value.name
        ]
        self._session, self._input, self._names = session_with_outputs(model, wanted)

    def observe(
        self, tensors: Iterable[Float32Array], *, progress: Callable[[int], None] | None = None
    ) -> Statistics:
        """Statistics of every float tensor of the model.

        Args:
            tensors: pre-processed inputs, each of the model's input shape, one per image.
            progress: called with the number of images done.

        Raises:
            CalibrationError: no images, or the float model itself gives NaN or infinity.
        """
        recorders = {name: _Recorder(name) for name in [self._input, *self._names]}
        count = 0
        for tensor in tensors:
            outputs = self._session.run(self._names, {self._input: tensor})
            _record(recorders, dict(zip(self._names, outputs, strict=True)), self._input, tensor)
            # Before the next inference makes as many again.
            del outputs
            count += 1
            if progress is not None:
                progress(count)
        if count == 0:
            raise CalibrationError(
                "there is no image to calibrate on", fix="give a folder or data set with images"
            )
        return Statistics(
            {name: recorder.build() for name, recorder in recorders.items() if recorder.used}, count
        )


def session_with_outputs(
    model: ir.Model, names: Iterable[str], *, threads: int = 1, blocked: bool = False
) -> tuple[ort.InferenceSession, str, list[str]]:
    """Session of the model that also gives inner tensors.

    Args:
        model: not changed.
        names: of the tensors.
        threads: inside one inference.
        blocked: as for :func:`edgeq.quantize.ort.cpu_session`; faster where the names are few.

    Returns:
        The session, the name of its input, and the names as a list.
    """
    wanted = list(dict.fromkeys(names))
    proto = ir.serde.serialize_model(model)
    existing = {output.name for output in proto.graph.output}
    for name in wanted:
        if name not in existing:
            proto.graph.output.add(name=name)
    session = cpu_session(proto.SerializeToString(), threads=threads, blocked=blocked)
    return session, session.get_inputs()[0].name, wanted


def _record(
    recorders: dict[str, _Recorder],
    outputs: dict[str, npt.NDArray[np.generic]],
    input_name: str,
    tensor: Float32Array,
) -> None:
    recorders[input_name].add(tensor)
    for name, values in outputs.items():
        if values.dtype == np.float32 and values.size:
            recorders[name].add(values.astype(np.float32, copy=False))


class _Recorder:
    """Running statistics of one tensor."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lows: list[float] = []
        self._highs: list[float] = []
        self._uncounted: list[Float32Array] = []
        """Of the last images."""
        self._histogram: Histogram | None = None
        self._channels: _ChannelRecorder | None = None

    @property
    def used(self) -> bool:
        return bool(self._lows)

    def add(self, values: Float32Array) -> None:
        if values.ndim == 4 and values.shape[0] == 1:
            rows = values.reshape(values.shape[1], -1)
            lows, highs = rows.min(axis=1), rows.max(axis=1)
            low, high = float(lows.min()), float(highs.max())
            if np.isfinite(low) and np.isfinite(high):
                self._channels = self._channels or _ChannelRecorder(len(lows))
                self._channels.add(lows, highs)
        else:
            low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise CalibrationError(
                f"the float model gives NaN or infinity in tensor {self._name!r}",
                fix="check the model with its own framework, and that the input's range is right",
            )
        self._lows.append(low)
        self._highs.append(high)
        self._uncounted.append(_subset(values))
        if len(self._uncounted) == _COUNTED_TOGETHER:
            self._count()

    def _count(self) -> None:
        count = len(self._uncounted)
        low, high = min(self._lows[-count:]), max(self._highs[-count:])
        counted = Histogram.of(np.concatenate(self._uncounted), low, high)
        self._histogram = counted if self._histogram is None else merge_histograms(self._histogram, counted)
        self._uncounted.clear()

    def build(self) -> TensorStatistics:
        if self._uncounted:
            self._count()
        if self._histogram is None:
            raise ValueError(f"{self._name!r} was never seen")
        return TensorStatistics(
            np.asarray(self._lows, np.float32),
            np.asarray(self._highs, np.float32),
            self._histogram,
            self._channels.build() if self._channels is not None else None,
        )


class _ChannelRecorder:
    """Running statistics per channel."""

    def __init__(self, channels: int) -> None:
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)
        self._sums = np.zeros((2, channels))
        self._count = 0

    def add(self, lows: Float32Array, highs: Float32Array) -> None:
        np.minimum(self._low, lows, out=self._low)
        np.maximum(self._high, highs, out=self._high)
        self._sums += np.stack([lows, highs])
        self._count += 1

    def build(self) -> ChannelStatistics:
        means = (self._sums / self._count).astype(np.float32)
        return ChannelStatistics(self._low, self._high, *means)


def _subset(values: Float32Array) -> Float32Array:
    """A regular subset of the values as a copy; an odd step keeps it from falling on the same columns."""
    step = values.size // _SUBSET
    return np.array(values.reshape(-1)[:: step | 1 if step > 1 else 1], np.float32)
