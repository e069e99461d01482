"""Each op of the table against ONNX Runtime, through the saved program."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.errors import ModelError
from edgeq.runtimes.coreml.ops import TABLE
from tests.runtimes.coreml.helpers import Graph, assert_same, image, package

X = (1, 8, 6, 6)


def weight(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def unary(op, **attributes):
    return lambda g: g.op(op, "x", **attributes)


def ints(g, *values):
    return g.constant(np.asarray(values, np.int64))


def conv(g, out=4, group=1, k=3, **attributes):
    kernel = g.constant(weight(out, 8 // group, k, k))
    return g.op("Conv", "x", kernel, g.constant(weight(out)), group=group, **attributes)


def resize(g, mode, *scales, **attributes):
    given = g.constant(np.asarray([1, 1, *scales], np.float32))
    return g.op("Resize", "x", "", given, mode=mode, **attributes)


def compared(g, op):
    return g.op("Where", g.op(op, "x", g.constant(np.float32(0))), "x", g.op("Neg", "x"))


CASES = {
    **{op: unary(op) for op in ("Abs", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish")},
    **{op: unary(op) for op in ("LeakyRelu", "Neg", "Relu", "Sigmoid", "Sin", "Softplus", "Tanh")},
    **{op: unary(op) for op in ("GlobalAveragePool", "GlobalMaxPool", "Flatten")},
    "Add": lambda g: g.op("Add", "x", g.constant(weight(8, 1, 1))),
    "ArgMax": unary("ArgMax", axis=1),
    "AveragePool": unary("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]),
    "AveragePool counts pads": unary(
        "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "BatchNormalization": lambda g: g.op(
        "BatchNormalization", "x", *(g.constant(np.abs(weight(8, seed=s)) + 0.5) for s in range(4))
    ),
    "Cast": lambda g: g.op("Cast", g.op("Cast", "x", to=7), to=1),
    "Clip": lambda g: g.op("Clip", "x", g.constant(np.float32(-0.5)), g.constant(np.float32(0.25))),
    "Clip relu6": lambda g: g.op("Clip", "x", g.constant(np.float32(0)), g.constant(np.float32(6))),
    "Clip open": lambda g: g.op("Clip", "x", "", g.constant(np.float32(0.25))),
    "Concat": lambda g: g.op("Concat", "x", g.op("Relu", "x"), axis=1),
    "Conv": conv,
    "Conv uneven pads": lambda g: conv(g, pads=[0, 1, 2, 3], strides=[2, 1]),
    "Conv same": lambda g: conv(g, auto_pad="SAME_UPPER", strides=[2, 2]),
    "Conv same lower": lambda g: conv(g, auto_pad="SAME_LOWER", strides=[2, 2]),
    "Conv dilated": lambda g: conv(g, dilations=[2, 2], pads=[2, 2, 2, 2]),
    "Conv depthwise": lambda g: conv(g, out=8, group=8, pads=[1, 1, 1, 1]),
    "ConvTranspose": lambda g: g.op(
        "ConvTranspose", "x", g.constant(weight(8, 4, 3, 3)), g.constant(weight(4)), strides=[2, 2],
        pads=[1, 1, 1, 1], output_padding=[1, 1],
    ),
    "DepthToSpace": unary("DepthToSpace", blocksize=2),
    "DepthToSpace CRD": unary("DepthToSpace", blocksize=2, mode="CRD"),
    "Div": lambda g: g.op("Div", "x", g.constant(np.float32(3))),
    "Equal": lambda g: g.op("Where", g.op("Equal", "x", "x"), "x", g.op("Neg", "x")),
    "Expand": lambda g: g.op("Expand", g.op("ReduceMax", "x", axes=[1]), ints(g, 1, 8, 6, 6)),
    "Gather": lambda g: g.op("Gather", "x", ints(g, 5, 0), axis=2),
    "GatherElements": lambda g: g.op(
        "GatherElements", "x", g.constant(np.ones((1, 2, 6, 6), np.int64)), axis=1
    ),
    "GatherND": lambda g: g.op("GatherND", "x", g.constant(np.asarray([[0, 1], [0, 3]], np.int64))),
    "Gemm": lambda g: g.op("Gemm", g.op("Flatten", "x"), g.constant(weight(288, 5)), g.constant(weight(5))),
    "Gemm transposed": lambda g: g.op("Gemm", g.op("Flatten", "x"), g.constant(weight(5, 288)), transB=1),
    "Greater": lambda g: compared(g, "Greater"),
    "GreaterOrEqual": lambda g: compared(g, "GreaterOrEqual"),
    "Less": lambda g: compared(g, "Less"),
    "Log": lambda g: g.op("Log", g.op("Exp", "x")),
    "MatMul": lambda g: g.op("MatMul", "x", g.constant(weight(6, 5))),
    "MatMul of two": lambda g: g.op("MatMul", "x", g.op("Relu", "x")),
    "Max": lambda g: g.op("Max", "x", g.constant(np.float32(0.1)), g.op("Neg", "x")),
    "MaxPool": unary("MaxPool", kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
    "MaxPool ceil": unary("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "Min": lambda g: g.op("Min", "x", g.constant(np.float32(0.1))),
    "Mod": lambda g: g.op(
        "Cast", g.op("Mod", g.op("Cast", g.op("Abs", g.op("Mul", "x", g.constant(np.float32(9)))), to=7),
                     ints(g, 3)), to=1,
    ),
    "Mul": lambda g: g.op("Mul", "x", g.op("Relu", "x")),
    "Pad": lambda g: g.op("Pad", "x", ints(g, 0, 1, 2, 0, 0, 0, 1, 3)),
    "Pad reflect": lambda g: g.op("Pad", "x", ints(g, 0, 0, 1, 2, 0, 0, 2, 1), mode="reflect"),
    "PRelu": lambda g: g.op("PRelu", "x", g.constant(weight(8, 1, 1))),
    "Pow": lambda g: g.op("Pow", g.op("Abs", "x"), g.constant(np.float32(1.5))),
    "Pow square": lambda g: g.op("Pow", "x", g.constant(np.float32(2))),
    "Reciprocal": lambda g: g.op("Reciprocal", g.op("Exp", "x")),
    "ReduceMax": unary("ReduceMax", axes=[1], keepdims=0),
    "ReduceMean": unary("ReduceMean", axes=[2, 3]),
    "ReduceMin": unary("ReduceMin", axes=[-1]),
    "ReduceSum": lambda g: g.op("ReduceSum", "x", ints(g, 1)),
    "Reshape": lambda g: g.op("Reshape", "x", ints(g, 1, -1, 9)),
    "Resize doubled": lambda g: resize(
        g, "nearest", 2, 2, coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "Resize nearest by half pixels": lambda g: resize(g, "nearest", 1.5, 2),
    "Resize linear": lambda g: resize(g, "linear", 2, 2),
    "Resize linear aligned": lambda g: resize(
        g, "linear", 2, 3, coordinate_transformation_mode="align_corners"
    ),
    "Resize linear asymmetric": lambda g: resize(
        g, "linear", 2, 2, coordinate_transformation_mode="asymmetric"
    ),
    "Silu": lambda g: g.op("Mul", "x", g.op("Sigmoid", "x")),
    "Slice": lambda g: g.op("Slice", "x", ints(g, 1, -5), ints(g, 9999, -1), ints(g, 2, 3), ints(g, 2, 1)),
    "Softmax": unary("Softmax", axis=1),
    "SpaceToDepth": unary("SpaceToDepth", blocksize=2),
    "Sqrt": lambda g: g.op("Sqrt", g.op("Exp", "x")),
    "Squeeze": lambda g: g.op("Squeeze", "x", ints(g, 0)),
    "Sub": lambda g: g.op("Sub", g.constant(np.float32(1)), "x"),
    "Tile": lambda g: g.op("Tile", "x", ints(g, 1, 2, 1, 3)),
    "Transpose": unary("Transpose", perm=[0, 2, 3, 1]),
    "Unsqueeze": lambda g: g.op("Unsqueeze", g.op("Squeeze", "x", ints(g, 0)), ints(g, 1)),
    "Where": lambda g: g.op("Where", g.op("Greater", "x", g.constant(np.float32(0))), "x", "x"),
}  # fmt: skip
"""Name, which begins with the op -> the graph's output."""


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_onnx_runtime_does(name):
    g = Graph(*X)
    assert_same(g.build(CASES[name](g)), image(*X), atol=2e-5)


def test_outputs_that_are_several():
    g = Graph(*X)
    parts = g.op("Split", "x", g.constant(np.asarray([2, 6], np.int64)), outputs=2, axis=1)
    values, indices = g.op("TopK", "x", g.constant(np.asarray([3], np.int64)), outputs=2, axis=1)
    assert_same(g.build(*parts, values, indices), image(*X))


def test_every_op_of_the_table_has_a_case():
    tested = {name.partition(" ")[0] for name in CASES} | {"Resize", "Split", "TopK"}
    quantised = {"QuantizeLinear", "DequantizeLinear"}
    opset_20 = {"Gelu"}
    passed_on = {"Identity"}
    assert set(TABLE) - tested == quantised | opset_20 | passed_on


def test_gelu_of_opset_20():
    g = Graph(1, 16, opset=20)
    assert_same(g.build(g.op("Gelu", "x"), g.op("Gelu", "x", approximate="tanh")), image(1, 16), atol=1e-4)


@pytest.mark.parametrize("name", ["Conv", "Add", "Softmax", "Resize linear", "Concat", "Silu"])
def test_float16_is_within_its_precision(name):
    g = Graph(*X)
    assert_same(g.build(CASES[name](g)), image(*X), half=True, atol=6e-3, rtol=2e-3)


REFUSED = {
    "cubic": (lambda g: resize(g, "cubic", 2, 2), "cubic"),
    "shrinks by interpolation": (lambda g: resize(g, "linear", 0.5, 0.5), "interpolates"),
    "six axes": (lambda g: g.op("Reshape", "x", ints(g, 1, 2, 2, 2, 6, 6)), "6 axes"),
    "dilated pool": (unary("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "dilations"),
    "cast to a type": (lambda g: g.op("Cast", g.op("Cast", "x", to=5), to=1), "cast"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_core_ml_has_not_is_refused_with_the_node(name, tmp_path):
    make, words = REFUSED[name]
    g = Graph(*X)
    with pytest.raises(ModelError, match=f"node.*{words}") as caught:
        package(g.build(make(g)), tmp_path)
    assert caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_constant_beyond_float16_is_refused():
    g = Graph(1, 4)
    data = g.build(g.op("MatMul", g.op("Mul", "x", g.constant(np.float32(1e6))), g.constant(weight(4, 4))))
    assert_same(data, image(1, 4), rtol=1e-4)
    with pytest.raises(ModelError, match=r"node0.*beyond float16"):
        assert_same(data, image(1, 4), half=True)
