"""YOLOX's and early YOLOv5's Focus stem as the one convolution that it is.

Focus takes every second pixel in both directions, four times with the four offsets, stacks the four
on the channel axis and convolves. A convolution with stride 2 and twice the kernel reads exactly the
same pixels with the same weights: the slices and the concatenation, which move the whole image, go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["fold_focus"]

_OFFSETS = 4


def fold_focus(model: ir.Model) -> bool:
    """Replace every Focus by a strided convolution, in place.

    Requires constants as initializers. Ensures the same outputs up to float32 rounding.

    Returns:
        Whether anything changed; the nodes left unused are the caller's to remove.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type == "Conv" and _fold(model.graph, node):
            changed = True
    return changed


def _fold(graph: ir.Graph, conv: ir.Node) -> bool:
    stacked = conv.inputs[0]
    concat = stacked.producer() if stacked is not None else None
    weight = _array(conv.inputs[1])
    if concat is None or weight is None or not _plain(conv):
        return False
    if concat.op_type != "Concat" or concat.attributes.get_int("axis", 0) != 1:
        return False
    taken = [_taken_pixels(value) for value in concat.inputs if value is not None]
    known = [entry for entry in taken if entry is not None]
    sources, offsets = {source for source, _ in known}, [offset for _, offset in known]
    if (
        len(known) != len(taken)
        or len(offsets) != _OFFSETS
        or len(set(offsets)) != _OFFSETS
        or len(sources) != 1
    ):
        return False
    source = next(iter(sources))
    if not _even(source):
        return False
    pads = list(conv.attributes.get_ints("pads", [0, 0, 0, 0]))
    folded = _interleaved(weight, offsets)
    tensor = ir.tensor(folded, name=f"{conv.name or conv.outputs[0].name}_focus_weight")
    value = ir.Value(
        name=tensor.name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(folded.shape)
    )
    graph.register_initializer(value)
    conv.replace_input_with(0, source)
    conv.replace_input_with(1, value)
    conv.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", list(folded.shape[2:]))
    conv.attributes["strides"] = ir.AttrInt64s("strides", [2, 2])
    conv.attributes["pads"] = ir.AttrInt64s("pads", [2 * pad for pad in pads])
    return True


def _plain(conv: ir.Node) -> bool:
    """Stride and dilation 1, one group, explicit padding."""
    attributes = conv.attributes
    return (
        attributes.get_int("group", 1) == 1
        and list(attributes.get_ints("strides", [1, 1])) == [1, 1]
        and list(attributes.get_ints("dilations", [1, 1])) == [1, 1]
        and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "")
    )


def _even(source: ir.Value) -> bool:
    """Whether height and width are even, so that the four slices cover the image."""
    shape = list(source.shape) if source.shape is not None else []
    return len(shape) == 4 and all(isinstance(size, int) and size % 2 == 0 for size in shape[2:])


def _taken_pixels(value: ir.Value) -> tuple[ir.Value, tuple[int, int]] | None:
    """(source, (row offset, column offset)) of slices with step 2 in both directions; None: anything else."""
    found: dict[int, int] = {}
    current = value
    while True:
        node = current.producer()
        if node is None or node.op_type != "Slice":
            break
        step = _every_second(node)
        source = node.inputs[0]
        if step is None or source is None or not found.keys().isdisjoint(step):
            return None
        found.update(step)
        current = source
    return (current, (found[2], found[3])) if found.keys() == {2, 3} else None


def _every_second(node: ir.Node) -> dict[int, int] | None:
    """Axis -> start of a slice that takes every second element to the end; None for other slices."""
    constants = [_array(entry) for entry in node.inputs[1:]]
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if len(constants) != 4 or shape is None:
        return None
    starts, ends, axes, steps = (
        np.empty(0) if array is None else np.atleast_1d(array) for array in constants
    )
    if not len(starts) == len(ends) == len(axes) == len(steps) > 0:
        return None
    taken: dict[int, int] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[int(axis)]
        if step != 2 or start not in (0, 1) or not isinstance(size, int) or end < size:
            return None
        taken[int(axis)] = int(start)
    return taken


def _array(value: ir.Value | None) -> npt.NDArray[Any] | None:
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def _interleaved(weight: npt.NDArray[Any], offsets: list[tuple[int, int]]) -> npt.NDArray[np.float32]:
    """(o, 4 c, k, k) on the stacked image -> (o, c, 2 k, 2 k) on the image itself."""
    outputs, stacked, height, width = weight.shape
    channels = stacked // _OFFSETS
    folded = np.zeros((outputs, channels, 2 * height, 2 * width), np.float32)
    for group, (dy, dx) in enumerate(offsets):
        folded[:, :, dy::2, dx::2] = weight[:, group * channels : (group + 1) * channels]
    return folded
