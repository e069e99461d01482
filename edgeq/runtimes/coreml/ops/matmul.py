"""Matrix products: linear where the second factor is a constant, else matmul."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.ops.conv import bias, stored
from edgeq.runtimes.coreml.ops.rounding import weight
from edgeq.runtimes.coreml.source import Node, refuse

__all__ = ["gemm", "matmul"]


def matmul(emit: Emitter, node: Node) -> None:
    """matmul; MIL takes a weight in ONNX's own order."""
    array = emit.constant(node, 1)
    second = emit.input(node, 1) if array is None else stored(emit, array, axis=array.ndim - 1)
    emit.write(node, "matmul", x=emit.input(node, 0), y=second)
    emit.layer(node)


def gemm(emit: Emitter, node: Node) -> None:
    """linear, whose weight is (outputs, inputs).

    Raises:
        ModelError: factors or a transposition that a layer does not have.
    """
    if float(node.get("alpha", 1.0)) != 1.0 or float(node.get("beta", 1.0)) != 1.0 or node.get("transA", 0):
        raise refuse(node, "it scales or transposes its input", "export it as a plain linear layer")
    name, array = node.inputs[1], emit.constant(node, 1)
    transposed = bool(node.get("transB", 0))
    if array is not None:
        rows = array if transposed else np.ascontiguousarray(array.T)
        factor = stored(emit, rows, axis=0)
    elif transposed:
        factor = emit.values[name]
    else:
        factor = _transposed(emit, node, name)
    emit.write(node, "linear", x=emit.input(node, 0), weight=factor, bias=bias(emit, node))
    emit.layer(node)


def _transposed(emit: Emitter, node: Node, name: str) -> object:
    """A weight behind DequantizeLinear, turned around with its integers."""
    maker = next((entry for entry in emit.source.nodes if name in entry.outputs), None)
    integers = emit.constant(maker, 0) if maker is not None and maker.op == "DequantizeLinear" else None
    if maker is None or integers is None:
        raise refuse(node, "its weight is computed", "export it as a plain linear layer")
    scale, given = emit.fixed(maker, 1, "scale"), emit.constant(maker, 2)
    zero = np.zeros(scale.shape, integers.dtype) if given is None else given
    axis = int(maker.get("axis", 1)) % 2
    return weight(emit, np.ascontiguousarray(integers.T), scale, zero, 1 - axis)
