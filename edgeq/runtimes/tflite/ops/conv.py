"""Convolutions in all forms."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Node, refuse
from edgeq.runtimes.tflite.ops.padding import VALID, pad_input, window_of
from edgeq.runtimes.tflite.ops.weights import weight_and_bias

__all__ = ["conv", "conv_transpose"]

_TWO_D = "TFLite convolves over height and width: give 1-D data a height of 1 before the export"


def conv(emit: Emitter, node: Node) -> None:
    """CONV_2D, or DEPTHWISE_CONV_2D with one input channel per group; groups go into CONV_2D as they are."""
    weight = emit.value(node.inputs[1])
    if len(weight.shape) != 4:
        raise refuse(node, f"it has {len(weight.shape) - 2} spatial axes", _TWO_D)
    group = int(node.get("group", 1))
    depthwise = group > 1 and weight.shape[1] == 1
    window = window_of(emit, node, (weight.shape[2], weight.shape[3]))
    source = emit.input(node)
    if window.explicit:
        source = pad_input(emit, node, source, window)
    fields = {
        "padding": window.padding,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
        "fusedActivationFunction": emit.activation(node),
    }
    if depthwise:
        order, axis = (1, 2, 3, 0), 3
        fields["depthMultiplier"] = weight.shape[0] // group
    else:
        order, axis = (0, 2, 3, 1), 0
    kernel, bias = weight_and_bias(
        emit, node, order, channel_axis=axis, channels=weight.shape[0], hybrid=not depthwise
    )
    code, options = (
        ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    )
    emit.op(code, [source, kernel, bias], [emit.output(node)], options, **fields)


def conv_transpose(emit: Emitter, node: Node) -> None:
    """TRANSPOSE_CONV over the full size, then a SLICE where ONNX crops with ``pads``."""
    weight = emit.value(node.inputs[1])
    if len(weight.shape) != 4:
        raise refuse(node, f"it has {len(weight.shape) - 2} spatial axes", _TWO_D)
    if any(int(entry) != 1 for entry in node.get("dilations", ())):
        raise refuse(node, "it is dilated", "replace it by a resize and a convolution")
    if node.get("auto_pad", "NOTSET") != "NOTSET":
        raise refuse(node, f"auto_pad {node.get('auto_pad')}", "export it with explicit pads")
    strides = [int(entry) for entry in node.get("strides", (1, 1))]
    pads = [int(entry) for entry in node.get("pads", (0, 0, 0, 0))]
    n, h, w, c = emit.stored(node.outputs[0])
    shape = emit.value(node.inputs[0]).shape
    full = [(shape[2 + i] - 1) * strides[i] + weight.shape[2 + i] for i in range(2)]
    if pads[0] + h > full[0] or pads[1] + w > full[1]:
        raise refuse(
            node, "output_padding reaches beyond what the kernel covers", "export with output_padding <= pads"
        )
    kernel, bias = weight_and_bias(emit, node, (1, 2, 3, 0), channel_axis=0, channels=c, hybrid=False)
    cropped = (h, w) != tuple(full)
    value = emit.graph.values[node.outputs[0]]
    target = emit.scratch(node, "full", (n, full[0], full[1], c), value) if cropped else emit.output(node)
    size = emit.constant(np.asarray([n, full[0], full[1], c], np.int32))
    emit.op(
        "TRANSPOSE_CONV",
        [size, kernel, emit.input(node), bias],
        [target],
        "TransposeConvOptions",
        padding=VALID,
        strideH=strides[0],
        strideW=strides[1],
        fusedActivationFunction=emit.activation(node),
    )
    if cropped:
        begin = emit.constant(np.asarray([0, pads[0], pads[1], 0], np.int32))
        end = emit.constant(np.asarray([n, h, w, c], np.int32))
        emit.op("SLICE", [target, begin, end], [emit.output(node)], "SliceOptions")
