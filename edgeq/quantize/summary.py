"""The float model with what calibration wants to know of its tensors computed inside.

A tensor that leaves ONNX Runtime is written to memory and read back for each thing that is asked of it.
Inside, its extremes and its subset are taken while the cache holds it, and its memory serves the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from edgeq.types import Float32Array

__all__ = ["Summarised", "subset", "with_summaries"]

_SUBSET = 1 << 12
"""About so many values per tensor and image go into the histogram; the extremes use them all."""
_AXES_AS_INPUT = 18
"""Opset from which ReduceMin and ReduceMax take their axes as an input."""
_LOWS, _HIGHS, _SUBSETS = "_edgeq_lows", "_edgeq_highs", "_edgeq_subsets"
_AXES = "_edgeq_axes"
_EVERYTHING = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Summarised:
    """A model with summaries of some of its tensors as further outputs."""

    model: onnx.ModelProto
    names: tuple[str, ...]
    """Of the tensors."""
    channel_counts: tuple[int, ...]
    subset_sizes: tuple[int, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the summaries, each of all the tensors one after the other; none without a tensor.

        Minima per channel (1, channels), maxima per channel, and values for the histograms (values,).
        """
        return (_LOWS, _HIGHS, _SUBSETS) if self.names else ()


def with_summaries(model: ir.Model, values: Iterable[ir.Value]) -> Summarised:
    """The model that also sums up tensors of its own.

    Args:
        model: not changed.
        values: some of its tensors; those that are not float32 of a known shape (1, c, h, w) are left out.
    """
    proto = ir.serde.serialize_model(model)
    known = {value.name: shape for value in values if value.name and (shape := _shape(value)) is not None}
    steps = {name: _step(int(np.prod(shape))) for name, shape in known.items()}
    opset = model.opset_imports.get("") or 0
    made: dict[str, list[str]] = {_LOWS: [], _HIGHS: [], _SUBSETS: []}
    nodes = []
    for node in proto.graph.node:
        nodes.append(node)
        # Right behind the node that makes the tensor: ONNX Runtime can run them in this order.
        for name in node.output:
            if name in known:
                nodes += _summary(name, steps[name], made, opset)
    # Each summary of all tensors in one output: hundreds of them would cost more than they hold.
    nodes += [
        helper.make_node("Concat", parts, [key], axis=0 if key == _SUBSETS else 1)
        for key, parts in made.items()
        if parts
    ]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    constants = {_number(number): [number] for number in (-1, 0, _EVERYTHING, *steps.values())}
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(numbers, np.int64), name)
        for name, numbers in {**constants, _AXES: [2, 3]}.items()
    )
    order = [name for node in nodes for name in node.output if name in known]
    found = Summarised(
        model=proto,
        names=tuple(order),
        channel_counts=tuple(known[name][1] for name in order),
        subset_sizes=tuple(-(-int(np.prod(known[name])) // steps[name]) for name in order),
    )
    for name in found.outputs:
        proto.graph.output.add(name=name)
    return found


def subset(values: Float32Array) -> Float32Array:
    """A regular subset of the values as a copy; an odd step keeps it from falling on the same columns."""
    return np.array(values.reshape(-1)[:: _step(values.size)], np.float32)


def _step(size: int) -> int:
    step = size // _SUBSET
    return step | 1 if step > 1 else 1


def _summary(name: str, step: int, made: dict[str, list[str]], opset: int) -> list[onnx.NodeProto]:
    """Nodes that sum up one tensor; what they make is added to the lists."""
    index = len(made[_LOWS])
    for key, parts in made.items():
        parts.append(f"{key}_{index}")
    flat, cut = f"{_SUBSETS}_{index}_flat", map(_number, (0, _EVERYTHING, 0, step))
    return [
        _reduction("ReduceMin", name, made[_LOWS][-1], opset),
        _reduction("ReduceMax", name, made[_HIGHS][-1], opset),
        helper.make_node("Reshape", [name, _number(-1)], [flat]),
        helper.make_node("Slice", [flat, *cut], [made[_SUBSETS][-1]]),
    ]


def _number(number: int) -> str:
    """Name of the constant."""
    return f"_edgeq_{number}"


def _reduction(op_type: str, source: str, target: str, opset: int) -> onnx.NodeProto:
    """Over height and width."""
    if opset >= _AXES_AS_INPUT:
        return helper.make_node(op_type, [source, _AXES], [target], keepdims=0)
    return helper.make_node(op_type, [source], [target], axes=[2, 3], keepdims=0)


def _shape(value: ir.Value) -> tuple[int, ...] | None:
    """(1, c, h, w); None: another one, or not known."""
    if value.dtype is not ir.DataType.FLOAT or value.shape is None:
        return None
    sizes = tuple(size for size in value.shape if isinstance(size, int))
    whole = len(sizes) == len(value.shape) == 4
    return sizes if whole and sizes[0] == 1 and min(sizes) > 0 else None
