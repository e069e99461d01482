"""Calibration: run the float model over images once and record what every tensor held."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from edgeq.errors import CalibrationError
from edgeq.quantize.glances import Look
from edgeq.quantize.ort import cpu_session, summing_session
from edgeq.quantize.record import Recorder, SummaryRecorder, not_finite
from edgeq.quantize.statistics import Statistics
from edgeq.quantize.summary import with_summaries
from edgeq.types import Float32Array

__all__ = ["KNOWN_RANGES", "MOVES_DATA", "Observer", "observed_values", "session_with_outputs"]

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

    def __init__(self, model: ir.Model, *, watched: Collection[str] = ()) -> None:
        """Load the model with summaries of its tensors as outputs.

        Args:
            model: normalised float model with one input; not changed.
            watched: tensors that may be looked at themselves.
        """
        self._watched = list(watched)
        wanted = [value for value in observed_values(model) if value.producer() is not None and value.name]
        self._summarised = with_summaries(model, wanted)
        summed = set(self._summarised.names)
        self._order = [value.name for value in wanted if value.name]
        self._whole = [name for name in self._order if name not in summed]
        # The answers too: NaN shows there at the latest.
        self._answers = [
            value.name
            for value in model.graph.outputs
            if value.name and value.name not in self._whole and value.dtype in (ir.DataType.FLOAT, None)
        ]
        existing = {output.name for output in self._summarised.model.graph.output}
        for name in dict.fromkeys([*self._whole, *self._watched]):
            if name not in existing:
                self._summarised.model.graph.output.add(name=name)
        self._session = summing_session(self._summarised.model.SerializeToString())
        self._input = self._session.get_inputs()[0].name

    def observe(
        self,
        tensors: Iterable[Float32Array],
        *,
        looks: Mapping[int, Look] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Statistics:
        """Statistics of every float tensor of the model.

        Args:
            tensors: pre-processed inputs, each of the model's input shape, one per image.
            looks: position of an image -> what is called with its watched tensors.
            progress: called with the number of images done.

        Raises:
            CalibrationError: no images, or the float model itself gives NaN or infinity.
        """
        summed = SummaryRecorder(
            self._summarised.names, self._summarised.channel_counts, self._summarised.subset_sizes
        )
        single = {name: Recorder(name) for name in [self._input, *self._whole]}
        count = 0
        for count, tensor in enumerate(tensors, start=1):
            self._record(tensor, summed, single, (looks or {}).get(count - 1))
            if progress is not None:
                progress(count)
        if count == 0:
            raise CalibrationError(
                "there is no image to calibrate on", fix="give a folder or data set with images"
            )
        found = summed.build()
        found.update((name, recorder.build()) for name, recorder in single.items() if recorder.used)
        return Statistics({name: found[name] for name in [self._input, *self._order] if name in found}, count)

    def _record(
        self,
        tensor: Float32Array,
        summed: SummaryRecorder,
        single: Mapping[str, Recorder],
        look: Look | None,
    ) -> None:
        """One image."""
        watched = self._watched if look is not None else []
        names = list(dict.fromkeys([*self._summarised.outputs, *self._whole, *self._answers, *watched]))
        values = dict(zip(names, self._session.run(names, {self._input: tensor}), strict=True))
        single[self._input].add(tensor)
        if self._summarised.outputs:
            summed.add(*(values[name] for name in self._summarised.outputs))
        for name in self._whole:
            if values[name].dtype == np.float32 and values[name].size:
                single[name].add(values[name])
        for name in self._answers:
            if not np.isfinite(values[name]).all():
                raise not_finite(name)
        if look is not None:
            look({name: values[name] for name in watched})


def session_with_outputs(
    model: ir.Model, names: Iterable[str], *, threads: int = 1, blocked: bool = False
) -> tuple[ort.InferenceSession, str, list[str]]:
    """Session of the part of the model that gives these tensors, inner ones or outputs.

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
    del proto.graph.output[:]
    for name in wanted:
        proto.graph.output.add(name=name)
    nodes = _needed_for(wanted, proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    session = cpu_session(proto.SerializeToString(), threads=threads, blocked=blocked, planned=False)
    return session, session.get_inputs()[0].name, wanted


def _needed_for(names: Iterable[str], nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that tensors depend on, in their order."""
    needed = set(names)
    kept = []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]
