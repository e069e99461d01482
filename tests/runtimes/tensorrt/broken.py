"""One model for each rule of the linter that breaks it; the name of the function is the rule's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

from .nets import Net, clean

BROKEN: dict[str, list[Callable[[], onnx.ModelProto]]] = {}


def breaks(rule: str):
    def add(make):
        BROKEN.setdefault(rule, []).append(make)
        return make

    return add


def layer(net: Net, x: str, weight: str, *rest: str, op: str = "Conv", **attributes) -> onnx.ModelProto:
    net.node(op, [x, weight, *rest], "y", **attributes)
    return net.model("y")


@breaks("opset")
def old_opset():
    net = Net()
    net.node("Conv", [net.pair("x"), net.weight("w", (8, 8, 1, 1), axis=None)], "y")
    return net.model("y", opset=11)


@breaks("integer-op")
def qlinear_conv():
    net = Net()
    net.pair("x")
    net.const("wq", np.ones((8, 8, 1, 1), np.int8))
    net.const("ws", np.full(8, 0.01, np.float32))
    net.const("wz", np.zeros(8, np.int8))
    net.node("QLinearConv", ["x_q", "x_scale", "x_zero", "wq", "ws", "wz", "x_scale", "x_zero"], "quantised")
    net.node("DequantizeLinear", ["quantised", "x_scale", "x_zero"], "y")
    return net.model("y")


@breaks("foreign-op")
def microsoft_op():
    model = clean()
    model.graph.node[-1].domain = "com.microsoft"
    return model


@breaks("foreign-op")
def fused_op_of_another_domain():
    model = clean()
    model.graph.node[-1].domain, model.graph.node[-1].op_type = "com.microsoft", "QuickGelu"
    del model.graph.node[-1].input[1:]
    return model


@breaks("tensor-dtype")
@breaks("quantised-dtype")
def int16_activation():
    net = Net()
    return layer(net, net.pair("x", dtype=np.int16), net.weight("w", (8, 8, 1, 1)))


@breaks("quantised-dtype")
def uint8_weight():
    net = Net()
    return layer(net, net.pair("x"), net.weight("w", (8, 8, 1, 1), dtype=np.uint8))


@breaks("quantised-dtype")
def no_zero_point_means_uint8():
    net = Net()
    model = layer(net, net.pair("x"), net.weight("w", (8, 8, 1, 1)))
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            del node.input[2]
    return model


@breaks("zero-point")
def activation_zero_point():
    net = Net()
    return layer(net, net.pair("x", zero=3), net.weight("w", (8, 8, 1, 1)))


@breaks("zero-point")
def weight_zero_point():
    net = Net()
    return layer(net, net.pair("x"), net.weight("w", (8, 8, 1, 1), zero=1))


@breaks("zero-point-count")
def one_zero_point_for_eight_scales():
    net = Net()
    net.weight("w", (8, 8, 1, 1))
    net.constants["w_zero"] = numpy_helper.from_array(np.int8(0), "w_zero")
    return layer(net, net.pair("x"), "w_dq")


@breaks("scale-value")
def dead_channel():
    net = Net()
    return layer(net, net.pair("x"), net.weight("w", (8, 8, 1, 1), scale=[0.0] + [0.01] * 7))


@breaks("scale-value")
def infinite_scale():
    net = Net()
    return layer(net, net.pair("x", scale=np.inf), net.weight("w", (8, 8, 1, 1)))


@breaks("scale-dtype")
def float16_scale():
    net = Net()
    return layer(net, net.pair("x", scale_dtype=np.float16), net.weight("w", (8, 8, 1, 1)))


@breaks("scale-constant")
def dynamic_quantisation():
    net = Net()
    net.node("ReduceMax", ["x"], "top", keepdims=0)
    net.const("zero", np.int8(0))
    net.node("QuantizeLinear", ["x", "top", "zero"], "q")
    net.node("DequantizeLinear", ["q", "top", "zero"], "dq")
    return layer(net, "dq", net.weight("w", (8, 8, 1, 1)))


@breaks("scale-count")
def four_scales_for_eight_channels():
    net = Net()
    return layer(net, net.pair("x"), net.weight("w", (8, 8, 1, 1), scale=np.full(4, 0.01)))


@breaks("bias-dtype")
def int32_bias():
    net = Net()
    parts = [
        net.const("bq", np.ones(8, np.int32)),
        net.const("bs", np.full(8, 2e-4, np.float32)),
        net.const("bz", np.zeros(8, np.int32)),
    ]
    bias = net.node("DequantizeLinear", parts, "bdq", axis=0)
    return layer(net, net.pair("x"), net.weight("w", (8, 8, 1, 1)), bias)


@breaks("one-side")
def float_weight():
    net = Net()
    return layer(net, net.pair("x"), net.float_weight("w", (8, 8, 1, 1)))


@breaks("one-side")
def float_input():
    net = Net()
    return layer(net, "x", net.weight("w", (8, 8, 1, 1)))


@breaks("op-between")
def relu_behind_the_pair():
    net = Net()
    net.node("Relu", [net.pair("x")], "r")
    return layer(net, "r", net.weight("w", (8, 8, 1, 1)))


@breaks("op-between")
def resize_behind_the_pair():
    net = Net()
    net.const("factors", np.array([1, 1, 2, 2], np.float32))
    net.node("Resize", [net.pair("x"), "", "factors"], "r", mode="nearest")
    return layer(net, "r", net.weight("w", (8, 8, 1, 1)))


@breaks("op-between")
def concat_of_two_scales():
    net = Net()
    first = net.pair("x")
    net.node("Relu", ["x"], "z")
    net.node("Concat", [first, net.pair("z", scale=0.03)], "r", axis=1)
    return layer(net, "r", net.weight("w", (8, 16, 1, 1)))


@breaks("weight-behind-op")
def transposed_weight():
    net = Net()
    net.node("Transpose", [net.weight("w", (8, 8, 1, 1))], "wt", perm=[1, 0, 2, 3])
    return layer(net, net.pair("x"), "wt")


@breaks("weight-axis")
def scales_along_the_inputs():
    net = Net()
    return layer(net, net.pair("x"), net.weight("w", (8, 8, 1, 1), axis=1))


@breaks("weight-axis")
def gemm_scales_along_the_inputs():
    net = Net()
    net.node("GlobalAveragePool", ["x"], "pooled")
    net.node("Flatten", ["pooled"], "flat")
    weight = net.weight("w", (8, 10), axis=0)
    return layer(net, net.pair("flat"), weight, net.const("b", np.ones(10, np.float32)), op="Gemm")


@breaks("per-channel-activation")
def scales_for_each_channel():
    net = Net()
    x = net.pair("x", scale=np.full(8, 0.02), axis=1)
    return layer(net, x, net.weight("w", (8, 1, 3, 3)), group=8)


@breaks("lone-quantize")
def cast_of_integers():
    net = Net()
    net.pair("x")
    net.node("Cast", ["x_q"], "f", to=onnx.TensorProto.FLOAT)
    return layer(net, "f", net.weight("w", (8, 8, 1, 1)))


@breaks("high-opset")
def new_opset():
    return clean(opset=21)


@breaks("layer-output-pair")
def pair_before_the_activation():
    net = Net()
    net.node("Conv", [net.pair("x"), net.weight("w", (8, 8, 1, 1))], "c")
    net.node("Relu", [net.pair("c")], "r")
    return layer(net, net.pair("r"), net.weight("w2", (8, 8, 1, 1)))


@breaks("one-sided-add")
def half_quantised_add():
    net = Net()
    x = net.pair("x")
    net.node("Conv", [x, net.weight("w", (8, 8, 1, 1))], "c")
    net.node("Relu", ["c"], "r")
    net.node("Add", ["r", x], "sum")
    return layer(net, net.pair("sum"), net.weight("w2", (8, 8, 1, 1)))


@breaks("transposed-convolution")
def deconvolution():
    net = Net()
    weight = net.weight("w", (8, 6, 2, 2), axis=1)
    return layer(net, net.pair("x"), weight, op="ConvTranspose", strides=[2, 2])
