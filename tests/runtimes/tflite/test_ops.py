"""Each ONNX op as TFLite computes it, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.errors import ModelError
from edgeq.runtimes.base import LowerOptions
from edgeq.runtimes.tflite.lower import convert, lower
from edgeq.runtimes.tflite.ops import TABLE
from tests.runtimes.tflite.helpers import Graph, assert_same, ops

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(1, 6, 12, 10)).astype(np.float32) * 3


def weights(*shape):
    return (RANDOM.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


CONVOLUTIONS = {
    "pointwise": {"w": (8, 6, 1, 1)},
    "same": {"w": (8, 6, 3, 3), "pads": [1, 1, 1, 1]},
    "valid": {"w": (8, 6, 3, 3)},
    "strided": {"w": (8, 6, 3, 3), "pads": [1, 1, 1, 1], "strides": [2, 2]},
    "uneven": {"w": (8, 6, 3, 3), "pads": [0, 2, 1, 0]},
    "dilated": {"w": (8, 6, 3, 3), "pads": [2, 2, 2, 2], "dilations": [2, 2]},
    "rectangle": {"w": (8, 6, 1, 5), "pads": [0, 2, 0, 2], "strides": [1, 2]},
    "depthwise": {"w": (6, 1, 3, 3), "pads": [1, 1, 1, 1], "group": 6},
    "depthwise strided": {"w": (6, 1, 5, 5), "pads": [2, 2, 2, 2], "group": 6, "strides": [2, 2]},
    "depth multiplier": {"w": (12, 1, 3, 3), "pads": [1, 1, 1, 1], "group": 6},
    "grouped": {"w": (8, 3, 3, 3), "pads": [1, 1, 1, 1], "group": 2},
    "auto same": {"w": (8, 6, 3, 3), "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "auto lower": {"w": (8, 6, 3, 3), "auto_pad": "SAME_LOWER", "strides": [2, 2]},
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("activation", ["Relu", None])
def test_convolutions(case, activation):
    options = dict(CONVOLUTIONS[case])
    shape = options.pop("w")
    g = Graph(*IMAGE.shape)
    y = g.op("Conv", "x", g.constant(weights(*shape)), g.constant(weights(shape[0])), **options)
    data = g.build(y if activation is None else g.op(activation, y))
    made = assert_same(data, IMAGE)
    assert "RELU" not in ops(made)


@pytest.mark.parametrize(
    "options",
    [
        {"w": (6, 5, 2, 2), "strides": [2, 2]},
        {"w": (6, 5, 3, 3), "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"w": (6, 5, 4, 4), "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"w": (6, 2, 3, 3), "strides": [1, 1], "group": 3},
    ],
    ids=["plain", "output padding", "cropped", "grouped"],
)
def test_transposed_convolutions(options):
    options = dict(options)
    shape = options.pop("w")
    g = Graph(*IMAGE.shape)
    count = shape[1] * options.get("group", 1)
    y = g.op("ConvTranspose", "x", g.constant(weights(*shape)), g.constant(weights(count)), **options)
    assert_same(g.build(y), IMAGE)


def clip(g, low, high):
    return g.op("Clip", "x", g.constant(low, np.float32), g.constant(high, np.float32))


ACTIVATIONS = {
    "relu": lambda g: g.op("Relu", "x"),
    "relu6": lambda g: clip(g, 0, 6),
    "clip": lambda g: clip(g, -0.5, 2.5),
    "leaky": lambda g: g.op("LeakyRelu", "x", alpha=0.1),
    "prelu": lambda g: g.op("PRelu", "x", g.constant(weights(6, 1, 1))),
    "sigmoid": lambda g: g.op("Sigmoid", "x"),
    "silu": lambda g: g.op("Mul", "x", g.op("Sigmoid", "x")),
    "hard swish": lambda g: g.op("HardSwish", "x"),
    "hard sigmoid": lambda g: g.op("HardSigmoid", "x", alpha=1 / 6, beta=0.5),
    "tanh": lambda g: g.op("Tanh", "x"),
    "elu": lambda g: g.op("Elu", "x"),
    "softplus": lambda g: g.op("Softplus", "x"),
    "exp": lambda g: g.op("Exp", "x"),
    "abs sqrt": lambda g: g.op("Sqrt", g.op("Abs", "x")),
    "log": lambda g: g.op("Log", g.op("Exp", "x")),
    "neg": lambda g: g.op("Neg", "x"),
    "floor": lambda g: g.op("Floor", "x"),
    "round": lambda g: g.op("Round", "x"),
    "square": lambda g: g.op("Pow", "x", g.constant(2, np.float32)),
    "power": lambda g: g.op("Pow", g.op("Exp", "x"), g.constant(1.5, np.float32)),
    "reciprocal": lambda g: g.op("Reciprocal", g.op("Exp", "x")),
    "add": lambda g: g.op("Add", "x", g.constant(weights(6, 1, 1))),
    "sub from": lambda g: g.op("Sub", g.constant(weights(1, 6, 12, 10)), "x"),
    "mul": lambda g: g.op("Mul", "x", g.constant(weights(10))),
    "div": lambda g: g.op("Div", "x", g.constant(np.abs(weights(12, 1)) + 1)),
    "max": lambda g: g.op("Max", "x", g.constant(0.5, np.float32), g.op("Neg", "x")),
    "where": lambda g: g.op("Where", g.op("Greater", "x", g.op("Neg", "x")), "x", g.op("Abs", "x")),
    "batch norm": lambda g: g.op(
        "BatchNormalization", "x", *(g.constant(np.abs(weights(6)) + 0.5) for _ in range(4))
    ),
    "cast": lambda g: g.op("Cast", g.op("Cast", "x", to=6), to=1),
    "mod": lambda g: g.op(
        "Cast", g.op("Mod", g.op("Cast", g.op("Abs", "x"), to=7), g.constant(3, np.int64)), to=1
    ),
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_elementwise(case):
    g = Graph(*IMAGE.shape)
    y = ACTIVATIONS[case](g)
    assert_same(g.build(y), IMAGE, atol=1e-3 if case in ("exp", "power") else 1e-4)


def test_products_with_hard_sigmoid_become_hard_swish():
    g = Graph(*IMAGE.shape)
    y = g.op("Mul", "x", g.op("HardSigmoid", "x", alpha=1 / 6, beta=0.5))
    assert ops(assert_same(g.build(y), IMAGE))["HARD_SWISH"] == 1


POOLS = {
    "max": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "max same": ("MaxPool", {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [1, 1]}),
    "max stem": ("MaxPool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "max ceil": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "average": ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "average same": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}),
    "average counted": (
        "AveragePool",
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "count_include_pad": 1},
    ),
    "global average": ("GlobalAveragePool", {}),
    "global max": ("GlobalMaxPool", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", POOLS)
def test_pools(case):
    kind, options = POOLS[case]
    g = Graph(*IMAGE.shape)
    assert_same(g.build(g.op(kind, "x", **options)), IMAGE)


RESIZES = {
    "nearest twice": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    },
    "nearest half pixel": {"mode": "nearest", "coordinate_transformation_mode": "half_pixel"},
    "nearest align corners": {"mode": "nearest", "coordinate_transformation_mode": "align_corners"},
    "nearest ceil": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "ceil",
    },
    "linear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "linear torch": {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    "linear corners": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    "linear asymmetric": {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
}


@pytest.mark.parametrize("case", RESIZES)
@pytest.mark.parametrize("factor", [2.0, 3.0, 1.5, 0.5])
def test_resizes_are_exact(case, factor):
    g = Graph(*IMAGE.shape)
    scales = g.constant([1, 1, factor, factor], np.float32)
    assert_same(g.build(g.op("Resize", "x", "", scales, **RESIZES[case])), IMAGE)


def test_a_cubic_resize_is_refused():
    g = Graph(*IMAGE.shape)
    data = g.build(g.op("Resize", "x", "", g.constant([1, 1, 2, 2], np.float32), mode="cubic"))
    with pytest.raises(ModelError, match=r"Resize node 'node0'.*cubic.*\n.*bilinear"):
        convert(data, LowerOptions())


def top(g):
    flat = g.op("Reshape", "x", g.constant([1, 72, 10], np.int64))
    best = g.op("ReduceMax", flat, axes=[-1], keepdims=0)
    values, indices = g.op("TopK", best, g.constant([7], np.int64), outputs=2, axis=-1)
    tiled = g.op(
        "Expand", g.op("Unsqueeze", indices, g.constant([2], np.int64)), g.constant([1, 7, 10], np.int64)
    )
    return g.op(
        "Add",
        g.op("GatherElements", flat, tiled, axis=1),
        g.op("Unsqueeze", values, g.constant([2], np.int64)),
    )


def shuffle(g):
    parts = g.op("Reshape", "x", g.constant([1, 2, 3, 12, 10], np.int64))
    mixed = g.op("Transpose", parts, perm=[0, 2, 1, 3, 4])
    return g.op("Reshape", mixed, g.constant([1, 6, 12, 10], np.int64))


def ints(g, *values):
    return g.constant(list(values), np.int64)


SHAPES = {
    "reshape": lambda g: g.op("Reshape", "x", ints(g, 1, 6, 120)),
    "flatten": lambda g: g.op("Flatten", "x"),
    "squeeze": lambda g: g.op("Squeeze", g.op("GlobalAveragePool", "x"), ints(g, 2, 3)),
    "unsqueeze": lambda g: g.op("Unsqueeze", g.op("ReduceMean", "x", axes=[2, 3], keepdims=0), ints(g, 0)),
    "transpose": lambda g: g.op("Transpose", "x", perm=[0, 3, 1, 2]),
    "yolo transpose": lambda g: g.op(
        "Transpose", g.op("Reshape", "x", ints(g, 1, 2, 3, 120)), perm=[0, 1, 3, 2]
    ),
    "shuffle": shuffle,
    "concat": lambda g: g.op("Concat", "x", g.op("Neg", "x"), g.constant(weights(1, 2, 12, 10)), axis=1),
    "concat of seven": lambda g: g.op("Concat", *(["x"] * 7), axis=2),
    "split": lambda g: g.op("Add", *g.op("Split", "x", outputs=2, axis=1)),
    "uneven split": lambda g: g.op("Mul", *reversed(g.op("Split", "x", ints(g, 1, 5), outputs=2, axis=1))),
    "slice": lambda g: g.op("Slice", "x", ints(g, 1, -4), ints(g, 5, 100), ints(g, 1, 3)),
    "strided slice": lambda g: g.op(
        "Slice", "x", ints(g, 1, 0), ints(g, 12, 10), ints(g, 2, 3), ints(g, 2, 3)
    ),
    "reversed": lambda g: g.op("Slice", "x", ints(g, -1), ints(g, -100), ints(g, 3), ints(g, -1)),
    "pad": lambda g: g.op("Pad", "x", ints(g, 0, 0, 1, 2, 0, 1, 3, 0)),
    "pad with": lambda g: g.op("Pad", "x", ints(g, 0, 0, 1, 2, 0, 0, 3, 0), g.constant(7, np.float32)),
    "reflect": lambda g: g.op("Pad", "x", ints(g, 0, 0, 1, 2, 0, 0, 3, 0), mode="reflect"),
    "expand": lambda g: g.op("Expand", g.op("GlobalAveragePool", "x"), ints(g, 1, 6, 4, 5)),
    "tile": lambda g: g.op("Tile", "x", ints(g, 1, 2, 1, 3)),
    "space to depth": lambda g: g.op("SpaceToDepth", "x", blocksize=2),
    "depth to space": lambda g: g.op("DepthToSpace", g.op("Concat", "x", "x", axis=1), blocksize=2),
    "pixel shuffle": lambda g: g.op(
        "DepthToSpace", g.op("Concat", "x", "x", axis=1), blocksize=2, mode="CRD"
    ),
    "gather one": lambda g: g.op("Gather", "x", g.constant(3, np.int64), axis=1),
    "gather some": lambda g: g.op("Gather", "x", ints(g, 4, 0, -1), axis=1),
    "gather run": lambda g: g.op("Gather", "x", ints(g, 2, 3, 4), axis=2),
    "gather grid": lambda g: g.op("Gather", "x", g.constant([[0, 1], [2, 5]], np.int64), axis=1),
    "top-k and gather": top,
    "arg max": lambda g: g.op("Cast", g.op("ArgMax", "x", axis=1), to=1),
    "arg max dropped": lambda g: g.op("Cast", g.op("ArgMax", "x", axis=2, keepdims=0), to=1),
    "mean": lambda g: g.op("ReduceMean", "x", axes=[2, 3]),
    "mean over channels": lambda g: g.op("ReduceMean", "x", axes=[1], keepdims=0),
    "max over all": lambda g: g.op("ReduceMax", "x"),
    "softmax over channels": lambda g: g.op("Softmax", "x", axis=1),
    "softmax": lambda g: g.op("Softmax", "x", axis=-1),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case):
    g = Graph(*IMAGE.shape)
    assert_same(g.build(SHAPES[case](g)), IMAGE)


def focus(g):
    parts = [
        g.op("Slice", "x", ints(g, top_, left), ints(g, 12, 10), ints(g, 2, 3), ints(g, 2, 2))
        for left in (0, 1)
        for top_ in (0, 1)
    ]
    return g.op("Conv", g.op("Concat", *parts, axis=1), g.constant(weights(8, 24, 3, 3)), pads=[1, 1, 1, 1])


def gemm(g):
    flat = g.op("Flatten", g.op("GlobalAveragePool", "x"))
    return g.op(
        "Gemm", flat, g.constant(weights(5, 6)), g.constant(weights(5)), transB=1, alpha=0.5, beta=2.0
    )


def attention(g, q=(1, 2, 3, 120)):
    query, key, value = (
        g.op("Reshape", g.op("Mul", "x", g.constant(f, np.float32)), ints(g, *q)) for f in (1, 2, 3)
    )
    scores = g.op("MatMul", g.op("Transpose", query, perm=[0, 1, 3, 2]), key)
    weighted = g.op("Transpose", g.op("Softmax", scores, axis=-1), perm=[0, 1, 3, 2])
    return g.op("Reshape", g.op("MatMul", value, weighted), ints(g, 1, 6, 12, 10))


PRODUCTS = {
    "focus": focus,
    "gemm": gemm,
    "gemm plain": lambda g: g.op("Gemm", g.op("Flatten", "x"), g.constant(weights(720, 4))),
    "linear": lambda g: g.op("Add", g.op("MatMul", "x", g.constant(weights(10, 7))), g.constant(weights(7))),
    "batched": lambda g: g.op("MatMul", "x", g.op("Transpose", "x", perm=[0, 1, 3, 2])),
    "constant left": lambda g: g.op("MatMul", g.constant(weights(4, 12)), "x"),
    "attention": attention,
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_products(case):
    g = Graph(*IMAGE.shape)
    assert_same(g.build(PRODUCTS[case](g)), IMAGE, atol=1e-3)


def test_an_unknown_op_is_named_and_nothing_is_written(tmp_path):
    g = Graph(*IMAGE.shape)
    data = g.build(g.op("Relu", g.op("Erf", "x")))
    with pytest.raises(ModelError, match=r"Erf node 'node0'.*\n.*export the model without it"):
        lower(data, tmp_path, LowerOptions())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"not onnx", b"\x08\x07"])
def test_what_is_not_onnx_is_refused(data):
    with pytest.raises(ModelError):
        convert(data, LowerOptions())


def test_every_op_of_the_table_has_a_rule_and_a_function():
    assert all(callable(entry.rule) and callable(entry.emit) for entry in TABLE.values())
