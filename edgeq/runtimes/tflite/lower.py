"""From a float or QDQ model in ONNX to a .tflite file; no TensorFlow.

The way through: read (pairs become grids), rewrite (activations into their ops), mark what is integer,
plan the storage orders, write op by op from one table, check with nothing left over, save.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError
from edgeq.files import atomic_write
from edgeq.runtimes.base import Artifact, LowerOptions
from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.fuse import fuse_activations, fuse_hard_swish, ungroup_transposed
from edgeq.runtimes.tflite.graph import Graph, Operand
from edgeq.runtimes.tflite.integer import mark_integer
from edgeq.runtimes.tflite.layout import identity, input_order, plan_layouts
from edgeq.runtimes.tflite.ops import TABLE
from edgeq.runtimes.tflite.read import read_graph
from edgeq.runtimes.tflite.tail import split_tail

__all__ = ["METADATA_NAME", "convert", "lower"]

METADATA_NAME = "edgeq"
"""Metadata buffer with JSON: the source's key-value pairs, and which node each tensor comes from."""
_MIN_RUNTIME = b"2.9.0"
"""First TensorFlow Lite with int8 XNNPACK, per-channel weights and grouped convolutions together."""


def lower(model: bytes, folder: Path, options: LowerOptions) -> Artifact:
    """The model as one ``.tflite`` file.

    With ``integer_io`` and a float tail (the decoding) there are two: the integers-only model, whose
    outputs are the head tensors, and ``NAME.tail.tflite``, float, which makes the source's outputs of them.
    The first names the second in its metadata.

    Args:
        model: serialised QDQ or float model, as edgeq normalises it.
        folder: where the artifact goes; it must exist.
        options: name and precision.

    Raises:
        ModelError: an op that TFLite has not, or not in this form; nothing is written.
        OutputError: it cannot be written.
        UnavailableError: ai-edge-litert is not installed.
    """
    path = folder / f"{options.name}.tflite"
    graph = _rewritten(model)
    if not options.integer_io:
        atomic_write(path, _written(graph, options))
        return Artifact(path, (path,))
    body, tail = split_tail(graph)
    if tail is None:
        atomic_write(path, _written(body, options))
        return Artifact(path, (path,))
    behind = folder / f"{options.name}.tail.tflite"
    second = _written(tail, replace(options, integer_io=False))
    first = _written(body, options, tail=behind.name)
    atomic_write(behind, second)
    atomic_write(path, first)
    return Artifact(path, (path, behind))


def convert(model: bytes, options: LowerOptions) -> bytes:
    """The bytes of the one ``.tflite`` file, nothing cut off; raises as :func:`lower` does."""
    return _written(_rewritten(model), options)


def _rewritten(model: bytes) -> Graph:
    graph = read_graph(model)
    _check_ops(graph)
    return mark_integer(fuse_activations(fuse_hard_swish(ungroup_transposed(graph))))


def _written(graph: Graph, options: LowerOptions, *, tail: str | None = None) -> bytes:
    """The flatbuffer of a graph.

    Args:
        graph: what to write.
        options: precision.
        tail: name of the file that goes on from the outputs, which then stay in storage order.
    """
    layouts = plan_layouts(graph, {op: entry.rule for op, entry in TABLE.items()})
    emit = Emitter(graph, layouts, float16_weights=options.float16_weights, hybrid=options.dynamic_range)
    inputs = {name: _input(emit, name, options) for name in graph.inputs}
    for node in graph.nodes:
        emit.node = node
        TABLE[node.op].emit(emit, node)
    emit.node = None
    outputs = {
        name: _output(emit, name, operand, options, stored=tail is not None)
        for name, operand in graph.outputs
    }
    return emit.writer.serialise(
        inputs=inputs, outputs=outputs, metadata=_metadata(emit, graph, tail), description="edgeq"
    )


def _check_ops(graph: Graph) -> None:
    for node in graph.nodes:
        if node.op not in TABLE:
            near = difflib.get_close_matches(node.op, TABLE, n=2, cutoff=0.7)
            hint = f" ({' or '.join(near)} could)" if near else ""
            raise ModelError(
                f"TFLite: {node.op} node {node.name!r} cannot be lowered: edgeq has no such op{hint}",
                fix="export the model without it, or cut it before that node; please report it",
            )


def _input(emit: Emitter, name: str, options: LowerOptions) -> int:
    """An input in its storage order; with ``integer_io`` on its grid, where every reader takes it so."""
    value = emit.graph.values[name]
    read = [
        (node.integer, operand.rounded)
        for node in emit.graph.nodes
        for operand in node.inputs
        if operand.name == name
    ]
    integer = options.integer_io and value.grid is not None and all(rounded for _, rounded in read)
    if options.integer_io and not integer:
        raise ModelError(
            f"the input {name!r} cannot be an integer: its first layer is float",
            fix="quantise the first layer too, or lower with float inputs and outputs",
        )
    tensor = emit.tensor(name, emit.stored(name), value.dtype, value.grid if integer else None)
    emit.entry(name, tensor)
    return tensor


def _output(emit: Emitter, name: str, operand: Operand, options: LowerOptions, *, stored: bool) -> int:
    """An output under its own name, in ONNX's own order or (``stored``) in that of a model's input."""
    value = emit.graph.values[operand.name]
    integer = options.integer_io and value.dtype == "float32"
    if integer and (value.grid is None or not operand.rounded):
        raise ModelError(
            f"the output {name!r} cannot be an integer: what computes it is float",
            fix="quantise the layers up to the outputs, cut the decoding off, or lower with float outputs",
        )
    rank = len(value.shape)
    order = input_order(rank) if stored else identity(rank)
    tensor = emit.fetch(operand, order, integer=integer)
    taken = tensor in emit.entries or emit.writer.tensors[tensor].data is not None
    if taken or tensor in emit.finished:
        source = emit.writer.tensors[tensor]
        copy = emit.tensor(name, source.shape, source.dtype, source.grid)
        emit.reshape(tensor, copy)
        tensor = copy
    emit.finished.add(tensor)
    emit.rename(tensor, name)
    return tensor


def _metadata(emit: Emitter, graph: Graph, tail: str | None) -> Mapping[str, bytes]:
    nodes: dict[str, Any] = {}
    for index, node in emit.wrote.items():
        nodes[emit.writer.tensors[index].name] = [node.name, node.op]
    content: dict[str, Any] = {"schema": 1, "source": dict(graph.metadata), "nodes": nodes}
    if tail is not None:
        content["tail"] = tail
    return {
        "min_runtime_version": _MIN_RUNTIME.ljust(16, b"\0"),
        METADATA_NAME: json.dumps(content, separators=(",", ":"), sort_keys=True).encode(),
    }
