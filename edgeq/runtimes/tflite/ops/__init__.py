"""The table: ONNX op -> how it treats storage orders, and the function that writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeq.runtimes.tflite import orders
from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Node
from edgeq.runtimes.tflite.layout import Rule
from edgeq.runtimes.tflite.ops import conv, elementwise, matmul, pool, resize, select, shape

__all__ = ["TABLE", "Lowering"]


@dataclass(frozen=True)
class Lowering:
    """How one ONNX op becomes TFLite."""

    rule: Rule
    emit: Callable[[Emitter, Node], None]


def _same(names: tuple[str, ...], rule: Rule, emit: Callable[[Emitter, Node], None]) -> dict[str, Lowering]:
    return dict.fromkeys(names, Lowering(rule, emit))


_UNARY = (
    *("Abs", "Ceil", "Cos", "Exp", "Floor", "HardSwish", "Log", "Neg", "Not", "Relu", "Round", "Sigmoid"),
    *("Sin", "Sqrt", "Tanh"),
)
_BINARY = (
    *("Add", "Sub", "Mul", "Div", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "And", "Or"),
)

TABLE: dict[str, Lowering] = {
    **_same(_UNARY, orders.follow, elementwise.unary),
    **_same(_BINARY, orders.elementwise, elementwise.binary),
    **_same(("Max", "Min", "Sum"), orders.elementwise, elementwise.variadic),
    **_same(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), orders.reshape, shape.reshape),
    **_same(
        ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd"), orders.axis_dropping, pool.reduce
    ),
    **_same(("ArgMax", "ArgMin"), orders.axis_dropping, pool.arg_max),
    **_same(("Softmax", "LogSoftmax"), orders.last_axis, matmul.softmax),
    "AveragePool": Lowering(orders.channels_last, pool.average_pool),
    "BatchNormalization": Lowering(orders.follow, matmul.batch_normalisation),
    "Cast": Lowering(orders.follow, elementwise.cast),
    "Clip": Lowering(orders.follow, elementwise.clip),
    "Concat": Lowering(orders.follow_all, shape.concat),
    "Conv": Lowering(orders.channels_last, conv.conv),
    "ConvTranspose": Lowering(orders.channels_last, conv.conv_transpose),
    "DepthToSpace": Lowering(orders.channels_last, shape.depth_to_space),
    "Elu": Lowering(orders.follow, elementwise.elu),
    "Expand": Lowering(orders.elementwise, shape.expand),
    "Gather": Lowering(orders.gather, select.gather),
    "GatherElements": Lowering(orders.as_onnx, select.gather_elements),
    "GatherND": Lowering(orders.as_onnx, select.gather_nd),
    "Gelu": Lowering(orders.follow, elementwise.gelu),
    "Gemm": Lowering(orders.rows, matmul.gemm),
    "GlobalAveragePool": Lowering(orders.channels_last, pool.global_average_pool),
    "GlobalMaxPool": Lowering(orders.channels_last, pool.global_max_pool),
    "HardSigmoid": Lowering(orders.follow, elementwise.hard_sigmoid),
    "LeakyRelu": Lowering(orders.follow, elementwise.leaky_relu),
    "MatMul": Lowering(orders.products, matmul.mat_mul),
    "MaxPool": Lowering(orders.channels_last, pool.max_pool),
    "Mod": Lowering(orders.elementwise, elementwise.mod),
    "PRelu": Lowering(orders.first_elementwise, elementwise.prelu),
    "Pad": Lowering(orders.follow, shape.pad),
    "Pow": Lowering(orders.elementwise, elementwise.power),
    "QuantizeLinear": Lowering(orders.follow, elementwise.requantise),
    "Reciprocal": Lowering(orders.follow, elementwise.reciprocal),
    "Resize": Lowering(orders.channels_last, resize.resize),
    "Slice": Lowering(orders.follow, shape.slice_),
    "Softplus": Lowering(orders.follow, elementwise.softplus),
    "SpaceToDepth": Lowering(orders.channels_last, shape.space_to_depth),
    "Split": Lowering(orders.follow, shape.split),
    "Tile": Lowering(orders.follow, shape.tile),
    "TopK": Lowering(orders.last_axis, select.top_k),
    "Transpose": Lowering(orders.transpose, shape.transpose),
    "Where": Lowering(orders.elementwise, elementwise.where),
}
