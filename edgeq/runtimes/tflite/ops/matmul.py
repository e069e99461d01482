"""Matrix products, softmax and batch normalisation."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Node, refuse
from edgeq.runtimes.tflite.layout import identity
from edgeq.runtimes.tflite.ops.weights import weight_and_bias

__all__ = ["batch_normalisation", "gemm", "mat_mul", "softmax"]


def mat_mul(emit: Emitter, node: Node) -> None:
    """FULLY_CONNECTED with a constant matrix, else BATCH_MATMUL."""
    right = emit.value(node.inputs[1])
    if right.constant and len(right.shape) == 2:
        kernel, bias = weight_and_bias(emit, node, (1, 0), channel_axis=0, channels=right.shape[1])
        _fully_connected(emit, node, kernel, bias)
        return
    if min(len(emit.value(operand).shape) for operand in node.inputs) < 2:
        raise refuse(node, "an operand is a vector", "export it with matrices")
    adjoint = []
    tensors = []
    for index, operand in enumerate(node.inputs):
        plain = identity(len(emit.value(operand).shape))
        order = plain if emit.value(operand).constant else emit.wanted(node, index)
        adjoint.append(order != plain)
        tensors.append(emit.fetch(operand, order, integer=node.integer))
    emit.op(
        "BATCH_MATMUL", tensors, [emit.output(node)], "BatchMatMulOptions", adjX=adjoint[0], adjY=adjoint[1]
    )


def gemm(emit: Emitter, node: Node) -> None:
    """FULLY_CONNECTED."""
    if node.get("transA", 0):
        raise refuse(node, "its first matrix is transposed", "export it with a Transpose before")
    weight = emit.value(node.inputs[1])
    transposed = bool(node.get("transB", 0))
    order = (0, 1) if transposed else (1, 0)
    channels = weight.shape[order[0]]
    kernel, bias = weight_and_bias(
        emit, node, order, channel_axis=0, channels=channels, scale_factor=float(node.get("alpha", 1.0))
    )
    _fully_connected(emit, node, kernel, bias)


def _fully_connected(emit: Emitter, node: Node, kernel: int, bias: int) -> None:
    source, output = emit.input(node), emit.output(node)
    keep = len(emit.writer.tensors[source].shape) != 2
    emit.op(
        "FULLY_CONNECTED",
        [source, kernel, bias],
        [output],
        "FullyConnectedOptions",
        keepNumDims=keep,
        fusedActivationFunction=emit.activation(node),
    )


def softmax(emit: Emitter, node: Node) -> None:
    """SOFTMAX along the last stored axis."""
    if node.op == "LogSoftmax":
        emit.op("LOG_SOFTMAX", [emit.input(node)], [emit.output(node)], "LogSoftmaxOptions")
        return
    emit.op("SOFTMAX", [emit.input(node)], [emit.output(node)], "SoftmaxOptions", beta=1.0)


def batch_normalisation(emit: Emitter, node: Node) -> None:
    """One MUL and one ADD: ``x * scale / sqrt(variance + epsilon) + shift``."""
    found = [emit.graph.constant(node.input(index)) for index in range(1, 5)]
    if any(entry is None for entry in found):
        raise refuse(node, "its statistics are computed by the model", "export the model in evaluation mode")
    scale, shift, mean, variance = (np.asarray(entry, np.float64) for entry in found)
    factor = scale / np.sqrt(variance + float(node.get("epsilon", 1e-5)))
    order = emit.order(node.outputs[0])
    shape = [1] * len(order)
    shape[1] = -1
    value = emit.graph.values[node.outputs[0]]
    scaled = emit.scratch(node, "scaled", emit.stored(node.outputs[0]), value)
    tensors = [
        emit.constant(entry.astype(np.float32).reshape(shape), order=order)
        for entry in (factor, shift - mean * factor)
    ]
    emit.op("MUL", [emit.input(node), tensors[0]], [scaled], "MulOptions")
    emit.op("ADD", [scaled, tensors[1]], [emit.output(node)], "AddOptions")
