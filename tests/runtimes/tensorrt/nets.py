"""Small QDQ models: one that TensorRT takes as it is, and the ways to spoil it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 8


@dataclass
class Net:
    """A graph in the making."""

    def __post_init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.random = np.random.default_rng(0)

    def const(self, name: str, array: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def pair(
        self, value: str, *, scale: Any = 0.02, zero: Any = 0, dtype: Any = np.int8,
        scale_dtype: Any = np.float32, axis: int | None = None,
    ) -> str:  # fmt: skip
        """value -> Q -> DQ."""
        axes = {} if axis is None else {"axis": axis}
        names = [
            self.const(f"{value}_scale", np.asarray(scale, scale_dtype)),
            self.const(f"{value}_zero", np.broadcast_to(np.asarray(zero, dtype), np.shape(scale)).copy()),
        ]
        quantised = self.node("QuantizeLinear", [value, *names], f"{value}_q", **axes)
        return self.node("DequantizeLinear", [quantised, *names], f"{value}_dq", **axes)

    def weight(
        self, name: str, shape: tuple[int, ...], *, axis: int | None = 0, scale: Any = None,
        zero: Any = 0, dtype: Any = np.int8,
    ) -> str:  # fmt: skip
        """int8 weight behind DequantizeLinear; axis None: one scale."""
        count = () if axis is None else (shape[axis],)
        scales = np.full(count, 0.01, np.float32) if scale is None else np.asarray(scale, np.float32)
        low = 0 if np.dtype(dtype).kind == "u" else -127
        values = self.random.integers(low, 127, shape).astype(dtype)
        parts = [
            self.const(f"{name}_q", values),
            self.const(f"{name}_scale", scales),
            self.const(f"{name}_zero", np.full(scales.shape, zero, dtype)),
        ]
        return self.node("DequantizeLinear", parts, f"{name}_dq", **({} if axis is None else {"axis": axis}))

    def float_weight(self, name: str, shape: tuple[int, ...]) -> str:
        return self.const(name, self.random.normal(size=shape).astype(np.float32) * 0.1)

    def model(
        self, output: str, *, opset: int = 17, size: int = 16, x_type: int = TensorProto.FLOAT
    ) -> onnx.ModelProto:
        """The model with the input ``x`` (1, 8, size, size)."""
        graph = helper.make_graph(
            self.nodes, "net",
            [helper.make_tensor_value_info("x", x_type, [1, CHANNELS, size, size])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            list(self.constants.values()),
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def clean(opset: int = 17) -> onnx.ModelProto:
    """conv, SiLU, residual add of two quantised tensors, conv: nothing to find."""
    net = Net()
    x = net.pair("x")
    conv = net.node(
        "Conv", [x, net.weight("w", (8, 8, 1, 1)), net.const("b", np.ones(8, np.float32))], "conv"
    )
    gate = net.node("Sigmoid", [conv], "gate")
    net.node("Mul", [conv, gate], "silu")
    total = net.node("Add", [net.pair("silu"), x], "add")
    assert total == "add"
    net.node("Conv", [net.pair("add"), net.weight("w2", (4, 8, 3, 3))], "y", pads=[1, 1, 1, 1])
    return net.model("y", opset=opset)
