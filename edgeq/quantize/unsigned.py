"""INT8 tensors as uint8, 128 higher: the same numbers, for which ONNX Runtime has integer kernels on x86.

Around int8 tensors it computes in float there. A sum of products in float is off in its last bits, which
pushes a few numbers in a million over a rounding boundary, and every layer behind makes more of it: a
YOLOv5n simulated so ended half as far from its .tflite in XNNPACK as from the float model. With integer
kernels, which sum exactly as the runtimes simulated do, a hundredth of that is left, in less time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from edgeq.runtimes.cpu import cpu_features

__all__ = ["with_unsigned_tensors"]

_SHIFT = 128


def with_unsigned_tensors(model: bytes) -> bytes:
    """The QDQ model with uint8 where it had int8 tensors; weights and all else stay as they are.

    Unchanged on x86 without VNNI, where ONNX Runtime's uint8 kernels add two products in 16 bits, which
    do not hold them.

    Args:
        model: serialised.
    """
    if cpu_features().get("vnni") == "no":
        return model
    proto = onnx.load_from_string(model)
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
        return model
    proto.graph.initializer.extend(shifted.values())
    return bytes(proto.SerializeToString())


def _signed_zero(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> np.ndarray | None:
    """The constant int8 zero point of a rounding; None: it has another type, or none."""
    entry = constants.get(node.input[2]) if len(node.input) > 2 else None
    if entry is None or entry.data_type != onnx.TensorProto.INT8:
        return None
    return numpy_helper.to_array(entry)
