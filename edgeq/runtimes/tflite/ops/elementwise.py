"""Ops of one and two operands that work element by element."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.fuse import limits_of
from edgeq.runtimes.tflite.graph import Array, Grid, Node, refuse

__all__ = [
    "binary",
    "cast",
    "clip",
    "elu",
    "gelu",
    "hard_sigmoid",
    "leaky_relu",
    "mod",
    "power",
    "prelu",
    "reciprocal",
    "requantise",
    "softplus",
    "unary",
    "variadic",
    "where",
]

_UNARY = {
    "Abs": ("ABS", "AbsOptions"),
    "Ceil": ("CEIL", None),
    "Cos": ("COS", "CosOptions"),
    "Exp": ("EXP", "ExpOptions"),
    "Floor": ("FLOOR", None),
    "HardSwish": ("HARD_SWISH", "HardSwishOptions"),
    "Log": ("LOG", None),
    "Neg": ("NEG", "NegOptions"),
    "Not": ("LOGICAL_NOT", "LogicalNotOptions"),
    "Relu": ("RELU", None),
    "Round": ("ROUND", None),
    "Sigmoid": ("LOGISTIC", None),
    "Sin": ("SIN", None),
    "Sqrt": ("SQRT", None),
    "Tanh": ("TANH", None),
}
_BINARY: dict[str, tuple[str, str | None]] = {
    "Add": ("ADD", "AddOptions"),
    "Sub": ("SUB", "SubOptions"),
    "Mul": ("MUL", "MulOptions"),
    "Div": ("DIV", "DivOptions"),
    "Max": ("MAXIMUM", "MaximumMinimumOptions"),
    "Min": ("MINIMUM", "MaximumMinimumOptions"),
    "Greater": ("GREATER", "GreaterOptions"),
    "GreaterOrEqual": ("GREATER_EQUAL", "GreaterEqualOptions"),
    "Less": ("LESS", "LessOptions"),
    "LessOrEqual": ("LESS_EQUAL", "LessEqualOptions"),
    "Equal": ("EQUAL", "EqualOptions"),
    "And": ("LOGICAL_AND", "LogicalAndOptions"),
    "Or": ("LOGICAL_OR", "LogicalOrOptions"),
}
_FUSES = frozenset({"Add", "Sub", "Mul", "Div"})
_INTEGERS = ("int32", "int64")


def unary(emit: Emitter, node: Node) -> None:
    """The op of the same meaning."""
    code, options = _UNARY[node.op]
    emit.op(code, [emit.input(node)], [emit.output(node)], options)


def binary(emit: Emitter, node: Node) -> None:
    """The op of the same meaning, with numpy's broadcasting in storage order."""
    code, options = _BINARY[node.op]
    if node.op == "Div" and emit.value(node.inputs[0]).dtype in _INTEGERS:
        code, options = "FLOOR_DIV", "FloorDivOptions"
        if not _not_negative(emit, node):
            raise refuse(node, "it divides integers that may be negative", "export it as a float division")
    operands = [operand_of(emit, node, index) for index in range(2)]
    fields: dict[str, object] = {}
    if node.op in _FUSES and code != "FLOOR_DIV":
        fields["fusedActivationFunction"] = emit.activation(node)
    if node.integer and node.op in ("Add", "Sub"):
        fields["potScaleInt16"] = False
    emit.op(code, operands, [emit.output(node)], options, **fields)


def _not_negative(emit: Emitter, node: Node) -> bool:
    """Indices from TopK divided by a count: ONNX truncates, TFLite rounds down, which is the same here."""
    divisor = emit.graph.constant(node.inputs[1])
    return divisor is not None and bool(np.all(divisor > 0))


def variadic(emit: Emitter, node: Node) -> None:
    """Max, Min and Sum of any number of operands, two by two."""
    code, options = {"Max": _BINARY["Max"], "Min": _BINARY["Min"], "Sum": _BINARY["Add"]}[node.op]
    found = operand_of(emit, node, 0)
    value = emit.graph.values[node.outputs[0]]
    for index in range(1, len(node.inputs)):
        last = index == len(node.inputs) - 1
        shape = emit.stored(node.outputs[0])
        made = emit.output(node) if last else emit.scratch(node, f"step{index}", shape, value)
        emit.op(code, [found, operand_of(emit, node, index)], [made], options)
        found = made
    if len(node.inputs) == 1:
        emit.alias(node, found)


def operand_of(emit: Emitter, node: Node, index: int) -> int:
    """An operand in the order of the output, with axes of length 1 where its rank is lower."""
    operand = node.inputs[index]
    value = emit.value(operand)
    order = emit.order(node.outputs[0])
    rank = len(order)
    if value.array is not None:
        if value.size == 1:
            return emit.constant(
                _constant(emit, node, index).reshape(()), value.name, grid=_grid(emit, node, index)
            )
        array = _constant(emit, node, index)
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        return emit.constant(array, value.name, grid=_grid(emit, node, index), order=order)
    tensor = emit.input(node, index)
    missing = rank - len(value.shape)
    if missing == 0 or value.size == 1:
        return tensor
    sizes = (1,) * missing + value.shape
    shape = tuple(sizes[axis] for axis in order)
    if shape[missing:] == emit.writer.tensors[tensor].shape and all(size == 1 for size in shape[:missing]):
        return tensor
    grid = emit.writer.tensors[tensor].grid
    made = emit.tensor(f"{value.name};expanded", shape, value.dtype, grid)
    emit.reshape(tensor, made)
    return made


def _constant(emit: Emitter, node: Node, index: int) -> Array:
    value = emit.value(node.inputs[index])
    array = (
        value.array if node.integer and value.grid is not None else emit.graph.constant(node.inputs[index])
    )
    if array is None:
        raise AssertionError(value.name)
    return array


def _grid(emit: Emitter, node: Node, index: int) -> Grid | None:
    return emit.value(node.inputs[index]).grid if node.integer else None


def clip(emit: Emitter, node: Node) -> None:
    """RELU, RELU6, RELU_N1_TO_1, else MAXIMUM and MINIMUM."""
    limits = limits_of(emit.graph, node)
    if limits is None:
        raise refuse(node, "its limits are computed by the model", "export it with constant limits")
    low, high = limits
    source, value = emit.input(node), emit.graph.values[node.outputs[0]]
    named = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}.get(limits)
    if named is not None and value.dtype == "float32":
        emit.op(named, [source], [emit.output(node)])
        return
    steps = [step for step in (("MAXIMUM", low), ("MINIMUM", high)) if np.isfinite(step[1])]
    if not steps:
        emit.alias(node, source)
    for index, (code, limit) in enumerate(steps):
        last = index == len(steps) - 1
        made = (
            emit.output(node)
            if last
            else emit.scratch(node, code.lower(), emit.stored(node.outputs[0]), value)
        )
        emit.op(
            code, [source, emit.constant(np.asarray(limit, value.dtype))], [made], "MaximumMinimumOptions"
        )
        source = made


def leaky_relu(emit: Emitter, node: Node) -> None:
    """LEAKY_RELU."""
    slope = float(node.get("alpha", 0.01))
    emit.op("LEAKY_RELU", [emit.input(node)], [emit.output(node)], "LeakyReluOptions", alpha=slope)


def prelu(emit: Emitter, node: Node) -> None:
    """PRELU with a constant slope per channel."""
    slope = emit.graph.constant(node.inputs[1])
    if slope is None:
        raise refuse(node, "its slope is computed by the model", "export it with a constant slope")
    order = emit.order(node.outputs[0])
    full = slope.reshape((1,) * (len(order) - slope.ndim) + slope.shape)
    # The batch axis is none of the slope's.
    stored = np.transpose(full, order)[0]
    emit.op("PRELU", [emit.input(node), emit.constant(stored)], [emit.output(node)])


def elu(emit: Emitter, node: Node) -> None:
    """ELU."""
    if float(node.get("alpha", 1.0)) != 1.0:
        raise refuse(node, f"alpha is {node.get('alpha')}", "TFLite's ELU has alpha 1")
    emit.op("ELU", [emit.input(node)], [emit.output(node)])


def gelu(emit: Emitter, node: Node) -> None:
    """GELU."""
    approximate = node.get("approximate", "none") == "tanh"
    emit.op("GELU", [emit.input(node)], [emit.output(node)], "GeluOptions", approximate=approximate)


def hard_sigmoid(emit: Emitter, node: Node) -> None:
    """``min(max(alpha * x + beta, 0), 1)`` in three ops, the middle one with a fused RELU."""
    slope, offset = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
    value, shape = emit.graph.values[node.outputs[0]], emit.stored(node.outputs[0])
    scaled = emit.scratch(node, "scaled", shape, value)
    shifted = emit.scratch(node, "shifted", shape, value)
    slope_, offset_, one = (emit.constant(np.asarray(x, np.float32)) for x in (slope, offset, 1.0))
    emit.op("MUL", [emit.input(node), slope_], [scaled], "MulOptions")
    emit.op("ADD", [scaled, offset_], [shifted], "AddOptions", fusedActivationFunction=1)
    emit.op("MINIMUM", [shifted, one], [emit.output(node)], "MaximumMinimumOptions")


def softplus(emit: Emitter, node: Node) -> None:
    """``log(1 + exp(x))`` as ``max(x, 0) + log(1 + exp(-|x|))``, which does not overflow."""
    value, shape = emit.graph.values[node.outputs[0]], emit.stored(node.outputs[0])
    names = ("abs", "neg", "exp", "plus", "log", "relu")
    size, negative, grown, plus, log, positive = (emit.scratch(node, name, shape, value) for name in names)
    source = emit.input(node)
    emit.op("ABS", [source], [size], "AbsOptions")
    emit.op("NEG", [size], [negative], "NegOptions")
    emit.op("EXP", [negative], [grown], "ExpOptions")
    emit.op("ADD", [grown, emit.constant(np.asarray(1.0, np.float32))], [plus], "AddOptions")
    emit.op("LOG", [plus], [log])
    emit.op("RELU", [source], [positive])
    emit.op("ADD", [positive, log], [emit.output(node)], "AddOptions")


def reciprocal(emit: Emitter, node: Node) -> None:
    """One divided by it."""
    one = emit.constant(np.asarray(1.0, np.float32))
    emit.op("DIV", [one, emit.input(node)], [emit.output(node)], "DivOptions")


def power(emit: Emitter, node: Node) -> None:
    """Squares and roots have ops of their own, which XNNPACK runs; the rest is POW."""
    exponent = emit.graph.constant(node.inputs[1])
    known = float(exponent.reshape(-1)[0]) if exponent is not None and exponent.size == 1 else None
    source = emit.input(node)
    if known == 2.0:
        emit.op("MUL", [source, source], [emit.output(node)], "MulOptions")
    elif known == 0.5:
        emit.op("SQRT", [source], [emit.output(node)])
    else:
        emit.op(
            "POW", [operand_of(emit, node, 0), operand_of(emit, node, 1)], [emit.output(node)], "PowOptions"
        )


def mod(emit: Emitter, node: Node) -> None:
    """FLOOR_MOD: ONNX's Mod takes the divisor's sign, as TFLite's does."""
    if node.get("fmod", 0):
        raise refuse(node, "it is C's fmod", "export it with fmod 0")
    emit.op(
        "FLOOR_MOD",
        [operand_of(emit, node, 0), operand_of(emit, node, 1)],
        [emit.output(node)],
        "FloorModOptions",
    )


def cast(emit: Emitter, node: Node) -> None:
    """CAST; between integers of different width nothing happens, since TFLite counts in int32."""
    source, output = emit.input(node), emit.graph.values[node.outputs[0]]
    narrow = {"int64": "int32", "float64": "float32"}
    target = narrow.get(output.dtype, output.dtype)
    if emit.writer.tensors[source].dtype == target and emit.writer.tensors[source].grid is None:
        emit.alias(node, source)
        return
    emit.op("CAST", [source], [emit.output(node)])


def where(emit: Emitter, node: Node) -> None:
    """SELECT_V2."""
    operands = [operand_of(emit, node, index) for index in range(3)]
    emit.op("SELECT_V2", operands, [emit.output(node)], "SelectV2Options")


def requantise(emit: Emitter, node: Node) -> None:
    """QUANTIZE from float or from another grid."""
    operand = node.inputs[0]
    integer = operand.rounded and emit.value(operand).grid is not None
    source = emit.fetch(operand, emit.order(operand.name), integer=integer)
    emit.op("QUANTIZE", [source], [emit.output(node)])
