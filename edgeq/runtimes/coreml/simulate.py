"""The QDQ model as a float16 package computes it, for ONNX Runtime on a machine without Core ML.

What a package stores between its operations is float16. In an INT8 model that is not a small thing: a value
that float16 puts on the other side of a rounding border becomes another integer, and a hundred layers
multiply such differences to half a point of mAP on 64 images, up or down. So the simulation rounds where the
program does: results and constants of everything but the decoding. How a device adds up inside an operation
stays its own affair.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.quantize.graph import add_constant, constant_array, node_name, tail_nodes
from edgeq.runtimes.coreml.source import read_source
from edgeq.runtimes.onnx_graph import PASSED_ON, read_onnx

__all__ = ["half_simulation"]

_MOVES = PASSED_ON | {
    "Concat", "Expand", "Flatten", "Gather", "MaxPool", "QuantizeLinear", "Relu", "Reshape", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""They give values that they were given, or integers: nothing to round."""
_PAIRS = ("QuantizeLinear", "DequantizeLinear")


def half_simulation(data: bytes) -> bytes:
    """The model with a rounding to float16 behind each operation that stores float16 in the package.

    Args:
        data: serialised QDQ or float model, as edgeq normalises it.

    Raises:
        ModelError: it is not ONNX.
    """
    model = read_onnx(data)
    graph = model.graph
    tail = tail_nodes(graph)
    lowered = {node.name for node in read_source(data).nodes}
    nodes = [node for node in graph if node not in tail]
    for node in nodes:
        _round_constants(graph, node)
    for value in graph.inputs:
        # The program's first rounding reads the input as it is; a float layer gets it in float16.
        direct = [use for use in value.uses() if use.node.op_type in _PAIRS or use.node in tail]
        _round(graph, value, before=nodes[0], but=direct)
    for node in nodes:
        # A sigmoid that has become part of a silu stores nothing.
        if node.op_type not in _MOVES and (node.op_type != "Sigmoid" or node_name(node) in lowered):
            for value in node.outputs:
                _round(graph, value)
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def _round_constants(graph: ir.Graph, node: ir.Node) -> None:
    """Weights and biases; scales hold in float16 already, limits stay what they are."""
    for index, value in enumerate(node.inputs):
        array = constant_array(value)
        if array is None or array.dtype != np.float32 or node.op_type in _PAIRS or value is None:
            continue
        with np.errstate(over="ignore"):
            half = np.clip(array.astype(np.float16), -65504, 65504).astype(np.float32)
        if not np.array_equal(half, array):
            node.replace_input_with(index, add_constant(graph, f"{value.name}_float16", half))


def _round(
    graph: ir.Graph, value: ir.Value, *, before: ir.Node | None = None, but: Collection[Any] = ()
) -> None:
    """Readers of a float32 value get what float16 keeps of it.

    Args:
        graph: changed.
        value: made by a node or an input.
        before: where to write it, for an input.
        but: readers that go on reading the value itself.
    """
    uses = [use for use in value.uses() if use not in but]
    is_output = value.is_graph_output()
    # A restored weight's type is nowhere written; there is only one that it can be.
    untyped = value.dtype is None and value.producer() is not None
    if not (value.dtype is ir.DataType.FLOAT or untyped) or not (uses or is_output):
        return
    name = value.name or ""
    narrow = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT16)}, name=f"{name}_narrow")
    wide = ir.node("Cast", [narrow.outputs[0]], {"to": int(ir.DataType.FLOAT)}, name=f"{name}_wide")
    narrow.outputs[0].name, wide.outputs[0].name = f"{name}_float16", f"{name}_rounded"
    wide.outputs[0].type, wide.outputs[0].shape = value.type, value.shape
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, [narrow, wide])
    elif before is not None:
        graph.insert_before(before, [narrow, wide])
    for use in uses:
        use.node.replace_input_with(use.idx, wide.outputs[0])
    if is_output:
        value.name, wide.outputs[0].name = f"{name}_exact", name
        graph.outputs[list(graph.outputs).index(value)] = wide.outputs[0]
