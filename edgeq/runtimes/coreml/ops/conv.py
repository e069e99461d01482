"""Convolutions. MIL orders their pads by axis, ONNX by end."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.quantize.recipe import Granularity, RangeMethod
from edgeq.quantize.weights import quantize_weight
from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.ops.rounding import weight
from edgeq.runtimes.coreml.source import Array, Node, refuse

__all__ = ["conv", "conv_transpose", "filters", "padding", "pads_of"]


def conv(emit: Emitter, node: Node) -> None:
    """conv; one or two dimensions."""
    kernel = emit.shape(node.inputs[1])[2:]
    emit.write(
        node, "conv", x=emit.input(node, 0), weight=filters(emit, node, axis=0), bias=bias(emit, node),
        strides=_ints(node.get("strides"), [1] * len(kernel)),
        dilations=_ints(node.get("dilations"), [1] * len(kernel)),
        groups=np.int32(node.get("group", 1)),
        **padding(emit, node, kernel),
    )  # fmt: skip
    emit.layer(node)


def conv_transpose(emit: Emitter, node: Node) -> None:
    """conv_transpose; its result's shape is given, which covers ONNX's output padding."""
    kernel = emit.shape(node.inputs[1])[2:]
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        raise refuse(node, f"auto_pad {node.get('auto_pad')}", "export it with explicit pads")
    shape = emit.source.shapes.get(node.outputs[0])
    emit.write(
        node, "conv_transpose", x=emit.input(node, 0), weight=filters(emit, node, axis=1),
        bias=bias(emit, node), strides=_ints(node.get("strides"), [1] * len(kernel)),
        dilations=_ints(node.get("dilations"), [1] * len(kernel)), groups=np.int32(node.get("group", 1)),
        **padding(emit, node, kernel),
        output_shape=None if shape is None else np.asarray(shape, np.int32),
    )  # fmt: skip
    emit.layer(node)


def filters(emit: Emitter, node: Node, *, axis: int) -> Any:
    """The weight: restored integers, rounded here where only weights are to be INT8, or plain.

    Args:
        emit: the program.
        node: its input 1 is the weight.
        axis: of the output channels.
    """
    array = emit.constant(node, 1)
    if array is None:
        return emit.input(node, 1)
    return stored(emit, array, axis=axis)


def stored(emit: Emitter, array: Array, *, axis: int) -> Any:
    """A float weight as a variable, in INT8 where only weights are to be."""
    if emit.int8_weights and array.ndim > 1 and not (emit.node is not None and emit.node.tail):
        found = quantize_weight(
            array,
            axis=axis,
            granularity=Granularity.PER_CHANNEL,
            method=RangeMethod.MSE,
            half_scales=emit.half,
        )
        return weight(emit, found.values, found.scale, np.zeros(found.scale.shape, np.int8), axis)
    return emit.share(emit.typed(array))


def bias(emit: Emitter, node: Node) -> Any:
    """The bias; None: there is none.

    Raises:
        ModelError: the model computes it.
    """
    name = node.input(2)
    if not name:
        return None
    array = emit.source.constants.get(name)
    if array is not None:
        return emit.typed(array)
    restored = emit.values.get(name)
    if restored is None or restored.val is None:
        raise refuse(node, "its bias is not a constant", "export the model again")
    return emit.typed(np.asarray(restored.val))


def padding(emit: Emitter, node: Node, kernel: tuple[int, ...]) -> dict[str, Any]:
    """MIL's two arguments for the pads."""
    pads = pads_of(emit, node, kernel)
    return {"pad_type": "custom", "pad": pads} if pads.any() else {"pad_type": "valid"}


def pads_of(emit: Emitter, node: Node, kernel: tuple[int, ...]) -> Array:
    """Pads in MIL's order: before and after for each axis in turn, (2 x axes,)."""
    rank = len(kernel)
    kind = node.get("auto_pad", "NOTSET")
    kind = kind.decode() if isinstance(kind, bytes) else kind
    if kind in ("NOTSET", "VALID", ""):
        pads = _ints(node.get("pads") if kind != "VALID" else None, [0] * 2 * rank)
        return np.asarray(pads.reshape(2, rank).T.reshape(-1), np.int32)
    strides = _ints(node.get("strides"), [1] * rank)
    dilations = _ints(node.get("dilations"), [1] * rank)
    sizes = emit.shape(node.inputs[0])[2:]
    found: list[int] = []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        before = total // 2 if kind == "SAME_UPPER" else total - total // 2
        found += [int(before), int(total - before)]
    return np.asarray(found, np.int32)


def _ints(values: Any, default: list[int]) -> Array:
    return np.asarray(default if values is None else list(values), np.int32)
