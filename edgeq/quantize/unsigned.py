"""INT8 tensors as uint8, 128 higher: the same numbers, for which ONNX Runtime has integer kernels on x86.

Around int8 tensors it computes in float there. A sum of products in float is off in its last bits, which
pushes a few numbers in a million over a rounding boundary, and every layer behind makes more of it: a
YOLOv5n simulated so ended half as far from its .tflite in XNNPACK as from the float model. With integer
kernels, which sum exactly as the runtimes simulated do, a hundredth of that is left, in less time.

A product of two tensors is written out where ONNX Runtime's kernel would round it otherwise: that adds the
zero point before it rounds to even, so with an odd one it takes the other side of every half, and a SiLU
whose input and output have one scale hits a half in one of 256 products.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from edgeq.machine import cpu_features

__all__ = ["unsigned_bytes", "with_unsigned_tensors"]

_SHIFT = 128


def with_unsigned_tensors(model: bytes) -> bytes:
    """The QDQ model with uint8 where it had int8 tensors; weights and all else stay as they are.

    Unchanged on x86 without VNNI, where ONNX Runtime's uint8 kernels add two products in 16 bits, which
    do not hold them.

    Args:
        model: serialised.
    """
    proto = onnx.load_from_string(model)
    return bytes(proto.SerializeToString()) if _mark(proto) else model


def unsigned_bytes(model: ir.Model) -> bytes:
    """The same of a model that is not serialised yet."""
    proto = ir.serde.serialize_model(model)
    _mark(proto)
    return bytes(proto.SerializeToString())


def _mark(proto: onnx.ModelProto) -> bool:
    """Make int8 tensors uint8 in place; whether there were any to make."""
    if cpu_features().get("vnni") == "no":
        return False
    constants = {entry.name: entry for entry in proto.graph.initializer}
    rounded = {node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    shifted: dict[str, onnx.TensorProto] = {}
    for node in proto.graph.node:
        restores = node.op_type == "DequantizeLinear" and node.input[0] in rounded
        if node.op_type != "QuantizeLinear" and not restores:
            continue
        zero = _signed_zero(node, constants)
        if zero is not None:
            name = f"{node.input[2]}_unsigned"
            shifted[name] = numpy_helper.from_array((zero.astype(np.int16) + _SHIFT).astype(np.uint8), name)
            node.input[2] = name
    if not shifted:
        return False
    proto.graph.initializer.extend(shifted.values())
    _write_products_out(proto.graph)
    return True


def _signed_zero(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> npt.NDArray[np.int8] | None:
    """The constant int8 zero point of a rounding; None: it has another type, or none."""
    entry = constants.get(node.input[2]) if len(node.input) > 2 else None
    if entry is None or entry.data_type != onnx.TensorProto.INT8:
        return None
    return numpy_helper.to_array(entry).astype(np.int8, copy=False)


def _write_products_out(graph: onnx.GraphProto) -> None:
    """Products of two tensors that are rounded with an odd zero point, in steps that are each exact."""
    constants = {entry.name: entry for entry in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        product = made.get(node.input[0])
        if node.op_type == "QuantizeLinear" and product is not None and product.op_type == "Mul":
            factors = [_grid(made.get(name), constants) for name in product.input]
            rounding = _grid(node, constants)
            known = [factor for factor in factors if factor is not None]
            if len(known) == len(factors) and rounding is not None and rounding[2] % 2:
                nodes += _product(node, known, rounding, graph)
                continue
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


_Grid = tuple[str, np.float32, int]
"""Tensor before (QuantizeLinear) or of integers (DequantizeLinear), scale, zero point."""


def _grid(node: onnx.NodeProto | None, constants: Mapping[str, onnx.TensorProto]) -> _Grid | None:
    """A rounding with one uint8 grid for the whole tensor; None: it is something else."""
    if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
        return None
    scale, zero = (constants.get(name) for name in node.input[1:3])
    if scale is None or zero is None or zero.data_type != onnx.TensorProto.UINT8:
        return None
    scales, zeros = numpy_helper.to_array(scale), numpy_helper.to_array(zero)
    if scales.size != 1 or zeros.size != 1:
        return None
    return node.input[0], np.float32(scales.reshape(-1)[0]), int(zeros.reshape(-1)[0])


def _product(
    node: onnx.NodeProto, factors: list[_Grid], rounding: _Grid, graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    """``round((a - za) (b - zb) sa sb / s) + z``, as XNNPACK computes it: the product is an integer."""
    name, nodes = node.output[0], list[onnx.NodeProto]()

    def constant(part: str, value: float) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), f"{name}_{part}"))
        return f"{name}_{part}"

    def step(op: str, inputs: list[str], part: str, to: int | None = None) -> str:
        made = onnx.helper.make_node(op, inputs, [f"{name}_{part}" if part else name])
        if to is not None:
            made.attribute.append(onnx.helper.make_attribute("to", to))
        nodes.append(made)
        return str(made.output[0])

    centred = []
    for index, (integers, _, zero) in enumerate(factors):
        wide = step("Cast", [integers], f"wide{index}", to=onnx.TensorProto.FLOAT)
        centred.append(step("Sub", [wide, constant(f"zero{index}", zero)], f"centred{index}"))
    scale = float(factors[0][1] * factors[1][1] / rounding[1])
    scaled = step("Mul", [step("Mul", centred, "product"), constant("scale", scale)], "scaled")
    moved = step("Add", [step("Round", [scaled], "rounded"), constant("zero", rounding[2])], "moved")
    clipped = step("Clip", [moved, constant("least", 0), constant("most", 255)], "clipped")
    step("Cast", [clipped], "", to=onnx.TensorProto.UINT8)
    return nodes
