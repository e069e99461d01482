"""Gather in its forms, and TopK."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Node, refuse
from edgeq.runtimes.tflite.layout import identity
from edgeq.runtimes.tflite.ops.shape import write_slice

__all__ = ["gather", "gather_elements", "gather_nd", "top_k"]


def gather(emit: Emitter, node: Node) -> None:
    """GATHER; constant neighbouring indices are a SLICE, which XNNPACK has."""
    value = emit.value(node.inputs[0])
    order = emit.wanted(node, 0)
    logical = int(node.get("axis", 0)) % len(value.shape)
    axis = order.index(logical)
    indices = emit.graph.constant(node.inputs[1])
    source = emit.input(node)
    if indices is None:
        tensors = [source, emit.input(node, 1)]
        emit.op("GATHER", tensors, [emit.output(node)], "GatherOptions", axis=axis, batchDims=0)
        return
    indices = np.where(indices < 0, indices + value.shape[logical], indices)
    flat = indices.reshape(-1)
    if indices.ndim > 1 or not np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)):
        tensors = [source, emit.constant(indices.astype(np.int32))]
        emit.op("GATHER", tensors, [emit.output(node)], "GatherOptions", axis=axis, batchDims=0)
        return
    shape = list(emit.writer.tensors[source].shape)
    begin = [0] * len(shape)
    begin[axis], shape[axis] = int(flat[0]), flat.size
    if indices.ndim == 1:
        write_slice(emit, source, emit.output(node), begin, tuple(shape))
        return
    cut = emit.scratch(node, "slice", tuple(shape), emit.graph.values[node.outputs[0]])
    write_slice(emit, source, cut, begin, tuple(shape))
    emit.reshape(cut, emit.output(node))


def gather_elements(emit: Emitter, node: Node) -> None:
    """GATHER from the flattened data at ``position of the other axes + index * stride``."""
    data, picked = emit.value(node.inputs[0]), emit.value(node.inputs[1])
    axis = int(node.get("axis", 0)) % len(data.shape)
    strides = [int(np.prod(data.shape[i + 1 :], dtype=np.int64)) for i in range(len(data.shape))]
    grids = np.indices(picked.shape)
    base = sum(
        (grids[i] * strides[i] for i in range(len(data.shape)) if i != axis), np.zeros(picked.shape, np.int64)
    )
    kind = "int32"
    name = node.outputs[0]
    flat = emit.tensor(f"{name};flat", (data.size,), data.dtype)
    emit.reshape(emit.input(node), flat)
    index = emit.fetch(node.inputs[1], identity(len(picked.shape)), integer=False)
    scaled = emit.tensor(f"{name};scaled", picked.shape, kind)
    emit.op("MUL", [index, emit.constant(np.asarray(strides[axis], np.int32))], [scaled], "MulOptions")
    placed = emit.tensor(f"{name};placed", picked.shape, kind)
    emit.op("ADD", [scaled, emit.constant(base.astype(np.int32))], [placed], "AddOptions")
    emit.op("GATHER", [flat, placed], [emit.output(node)], "GatherOptions", axis=0, batchDims=0)


def gather_nd(emit: Emitter, node: Node) -> None:
    """GATHER_ND."""
    if int(node.get("batch_dims", 0)):
        raise refuse(node, "it has batch_dims", "export it without")
    emit.op("GATHER_ND", [emit.input(node, 0), emit.input(node, 1)], [emit.output(node)], "GatherNdOptions")


def top_k(emit: Emitter, node: Node) -> None:
    """TOPK_V2 along the last stored axis; the smallest ones are the largest of the negated."""
    count = emit.graph.constant(node.inputs[1])
    if count is None:
        raise refuse(node, "its count is computed by the model", "export it with a fixed count")
    largest = bool(node.get("largest", 1))
    value, source = emit.value(node.inputs[0]), emit.input(node)
    if not largest:
        negated = emit.scratch(node, "negated", emit.writer.tensors[source].shape, value)
        emit.op("NEG", [source], [negated], "NegOptions")
        source = negated
    shape = emit.stored(node.outputs[0])
    found = emit.output(node) if largest else emit.scratch(node, "found", shape, value)
    indices = (
        emit.output(node, 1)
        if len(node.outputs) > 1 and node.outputs[1]
        else emit.tensor(f"{node.outputs[0]};indices", shape, "int32")
    )
    k = emit.constant(np.asarray(int(count.reshape(-1)[0]), np.int32))
    emit.op("TOPK_V2", [source, k], [found, indices], "TopKV2Options")
    if not largest:
        emit.op("NEG", [found], [emit.output(node)], "NegOptions")
