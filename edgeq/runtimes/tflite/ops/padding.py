"""Padding: TFLite's two names where they mean the same, else an explicit PAD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Node, refuse

__all__ = ["SAME", "VALID", "Window", "pad_input", "window_of"]

SAME, VALID = 0, 1
"""Values of the schema's enum Padding."""


@dataclass(frozen=True)
class Window:
    """A sliding window over height and width."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    """top, left, bottom, right, as ONNX orders them; with what ``ceil_mode`` adds."""
    padding: int
    """`SAME` or `VALID`; VALID with pads means that they are to be written out."""

    @property
    def explicit(self) -> bool:
        """Whether a PAD has to stand before."""
        return self.padding == VALID and any(self.pads)


def window_of(emit: Emitter, node: Node, kernel: tuple[int, int]) -> Window:
    """The window of a convolution or pool.

    SAME in TFLite pads ``max((ceil(in / stride) - 1) * stride + reach - in, 0)`` in all, the smaller half
    before; ``reach = (kernel - 1) * dilation + 1``.
    """
    shape, result = emit.value(node.inputs[0]).shape[2:], emit.graph.values[node.outputs[0]].shape[2:]
    strides = _pair(node.get("strides"), 1)
    dilations = _pair(node.get("dilations"), 1)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    before, after = [], []
    for axis in range(2):
        total = max((result[axis] - 1) * strides[axis] + reach[axis] - shape[axis], 0)
        begin = _begin(node, axis, total)
        before.append(begin)
        # What no window reaches needs no padding; ceil_mode may reach further than the pads say.
        after.append(max(total - begin, 0))
    padding = VALID
    if any((*before, *after)) and all(
        _same(shape[axis], result[axis], strides[axis], reach[axis], before[axis]) for axis in range(2)
    ):
        padding = SAME
    return Window(kernel, strides, dilations, (before[0], before[1], after[0], after[1]), padding)


def _same(size: int, result: int, stride: int, reach: int, before: int) -> bool:
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return result == -(-size // stride) and before == total // 2


def _begin(node: Node, axis: int, total: int) -> int:
    automatic = node.get("auto_pad", "NOTSET")
    if automatic == "SAME_UPPER":
        return total // 2
    if automatic == "SAME_LOWER":
        return total - total // 2
    pads = node.get("pads")
    return int(pads[axis]) if automatic == "NOTSET" and pads is not None else 0


def pad_input(emit: Emitter, node: Node, source: int, window: Window, *, lowest: bool = False) -> int:
    """The input with its border written out; zeros, or the lowest value for a maximum."""
    shape = emit.writer.tensors[source].shape
    top, left, bottom, right = window.pads
    if min(window.pads) < 0:
        raise refuse(node, f"negative padding {window.pads}", "export the model without it")
    pads = np.asarray([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    padded = (shape[0], shape[1] + top + bottom, shape[2] + left + right, shape[3])
    value = emit.value(node.inputs[0])
    made = emit.scratch(node, "padded", padded, value)
    if not lowest:
        emit.op("PAD", [source, emit.constant(pads)], [made], "PadOptions")
        return made
    tensor = emit.writer.tensors[source]
    low = np.finfo(np.float32).min if tensor.grid is None else np.iinfo(tensor.dtype).min
    fill = emit.constant(np.asarray([low], tensor.dtype), grid=tensor.grid)
    emit.op("PADV2", [source, emit.constant(pads), fill], [made], "PadV2Options")
    return made


def _pair(values: object, default: int) -> tuple[int, int]:
    if isinstance(values, (list, tuple)) and len(values) == 2:
        return int(values[0]), int(values[1])
    return default, default
