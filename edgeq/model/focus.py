"""YOLOX's and early YOLOv5's Focus stem as the one convolution that it is.

Focus takes every second pixel in both directions, four times with the four offsets, stacks the four
on the channel axis and convolves. A convolution with stride 2 and twice the kernel reads exactly the
same pixels with the same weights: the slices and the concatenation, which move the whole image, go.
"""

from __future__ import annotations

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
    concat = conv.inputs[0].producer() if conv.inputs[0] is not None else None
    if concat is None or concat.op_type != "Concat" or concat.attributes.get_int("axis", 0) != 1:
        return False
    taken = [_offset(value) for value in concat.inputs if value is not None]
    sources = {source for source, _, _ in taken if source is not None}
    offsets = [(dy, dx) for _, dy, dx in taken]
    if len(taken) != _OFFSETS or len(sources) != 1 or len(set(offsets)) != _OFFSETS or None in {s for s, _, _ in taken}:
        return False
    source = next(iter(sources))
    weight = conv.inputs[1].const_value.numpy() if conv.inputs[1] is not None and conv.inputs[1].const_value else None
    if weight is None or not _plain(conv) or not _even(source):
        return False
    attributes = conv.attributes
    pads = list(attributes.get_ints("pads", [0, 0, 0, 0]))
    folded = _interleaved(weight, offsets)
    name = f"{conv.inputs[1].name}_focus"
    tensor = ir.tensor(folded, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(folded.shape))
    graph.register_initializer(value)
    conv.replace_input_with(0, source)
    conv.replace_input_with(1, value)
    attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", list(folded.shape[2:]))
    attributes["strides"] = ir.AttrInt64s("strides", [2, 2])
    attributes["pads"] = ir.AttrInt64s("pads", [2 * pad for pad in pads])
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


def _offset(value: ir.Value) -> tuple[ir.Value | None, int, int]:
    """(source, row offset, column offset) of a chain of slices with step 2 in both directions."""
    found: dict[int, int] = {}
    current = value
    while True:
        node = current.producer()
        if node is None or node.op_type != "Slice":
            break
        constants = [entry.const_value.numpy() if entry and entry.const_value else None for entry in node.inputs[1:]]
        if len(constants) != 4 or any(constant is None for constant in constants):
            return None, 0, 0
        starts, ends, axes, steps = (np.atleast_1d(constant) for constant in constants)
        length = current.shape
        if len(axes) != 1 or steps[0] != 2 or starts[0] not in (0, 1) or length is None or node.inputs[0] is None:
            return None, 0, 0
        size = node.inputs[0].shape[int(axes[0])] if node.inputs[0].shape is not None else None
        if not isinstance(size, int) or ends[0] < size or int(axes[0]) in found:
            return None, 0, 0
        found[int(axes[0])] = int(starts[0])
        current = node.inputs[0]
    if found.keys() != {2, 3}:
        return None, 0, 0
    return current, found[2], found[3]


def _interleaved(weight: npt.NDArray[np.floating], offsets: list[tuple[int, int]]) -> npt.NDArray[np.float32]:
    """(o, 4 c, k, k) on the stacked image -> (o, c, 2 k, 2 k) on the image itself."""
    outputs, stacked, height, width = weight.shape
    channels = stacked // _OFFSETS
    folded = np.zeros((outputs, channels, 2 * height, 2 * width), np.float32)
    for group, (dy, dx) in enumerate(offsets):
        folded[:, :, dy::2, dx::2] = weight[:, group * channels : (group + 1) * channels]
    return folded
