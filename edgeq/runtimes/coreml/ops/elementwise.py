"""Ops that treat each element by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.source import Node, refuse

__all__ = [
    "batch_norm", "binary", "chained", "clip", "divide", "elu", "gelu", "hard_sigmoid", "hard_swish",
    "leaky_relu", "log", "negate", "power", "prelu", "reciprocal", "softmax", "unary",
]  # fmt: skip


def unary(kind: str) -> Callable[[Emitter, Node], None]:
    """An op with one input and no settings."""

    def write(emit: Emitter, node: Node) -> None:
        emit.write(node, kind, x=emit.input(node, 0))

    return write


def binary(kind: str) -> Callable[[Emitter, Node], None]:
    """An op with two inputs that broadcast."""

    def write(emit: Emitter, node: Node) -> None:
        emit.write(node, kind, x=emit.input(node, 0), y=emit.input(node, 1))

    return write


def chained(kind: str) -> Callable[[Emitter, Node], None]:
    """An op with any number of inputs, two at a time."""

    def write(emit: Emitter, node: Node) -> None:
        result = emit.input(node, 0)
        for index in range(1, len(node.inputs)):
            result = emit.op(kind, x=result, y=emit.input(node, index))
        emit.values[node.outputs[0]] = result

    return write


def divide(emit: Emitter, node: Node) -> None:
    """real_div; floor_div for integers, of which ONNX's rounds to zero: the same where none is negative."""
    first = emit.input(node, 0)
    emit.write(node, "real_div" if emit.is_float(first) else "floor_div", x=first, y=emit.input(node, 1))


def power(emit: Emitter, node: Node) -> None:
    """pow; a square as x * x, exact and defined for negative x."""
    exponent = emit.constant(node, 1)
    value = emit.input(node, 0)
    if exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2.0:
        emit.write(node, "mul", x=value, y=value)
        return
    emit.write(node, "pow", x=value, y=emit.input(node, 1))


def clip(emit: Emitter, node: Node) -> None:
    """relu, relu6 or clip."""
    limits = []
    for index, default in ((1, -np.inf), (2, np.inf)):
        given = emit.fixed(node, index, "limit") if node.input(index) else None
        limits.append(default if given is None else float(given.reshape(())))
    value = emit.input(node, 0)
    if limits == [0.0, np.inf]:
        emit.write(node, "relu", x=value)
    elif limits == [0.0, 6.0]:
        emit.write(node, "relu6", x=value)
    else:
        low, high = np.clip(limits, *_finite(emit))
        emit.write(node, "clip", x=value, alpha=emit.float_dtype(low), beta=emit.float_dtype(high))


def _finite(emit: Emitter) -> tuple[float, float]:
    info = np.finfo(emit.float_dtype)
    return float(info.min), float(info.max)


def leaky_relu(emit: Emitter, node: Node) -> None:
    """leaky_relu."""
    emit.write(
        node, "leaky_relu", x=emit.input(node, 0), alpha=emit.float_dtype(float(node.get("alpha", 0.01)))
    )


def elu(emit: Emitter, node: Node) -> None:
    """elu."""
    emit.write(node, "elu", x=emit.input(node, 0), alpha=emit.float_dtype(float(node.get("alpha", 1.0))))


def prelu(emit: Emitter, node: Node) -> None:
    """prelu; a slope per channel or one for all."""
    slope = emit.typed(emit.fixed(node, 1, "slope"))
    channels = emit.shape(node.inputs[0])[1]
    if slope.size not in (1, channels):
        raise refuse(
            node, f"a slope of shape {list(slope.shape)}", "Core ML has one per channel: export it so"
        )
    alpha = np.broadcast_to(slope.reshape(-1), (channels,)).copy()
    emit.write(node, "prelu", x=emit.input(node, 0), alpha=alpha)


def hard_sigmoid(emit: Emitter, node: Node) -> None:
    """sigmoid_hard."""
    emit.write(node, "sigmoid_hard", x=emit.input(node, 0), **_slope(emit, node, 0.2))


def hard_swish(emit: Emitter, node: Node) -> None:
    """``x * sigmoid_hard(x)`` with slope 1/6."""
    value = emit.input(node, 0)
    gate = emit.op("sigmoid_hard", x=value, **_slope(emit, node, 1 / 6))
    emit.write(node, "mul", x=value, y=gate)


def _slope(emit: Emitter, node: Node, default: float) -> dict[str, Any]:
    alpha, beta = float(node.get("alpha", default)), float(node.get("beta", 0.5))
    return {"alpha": emit.float_dtype(alpha), "beta": emit.float_dtype(beta)}


def gelu(emit: Emitter, node: Node) -> None:
    """gelu, exact or with tanh."""
    mode = "TANH_APPROXIMATION" if node.get("approximate", "none") == "tanh" else "EXACT"
    emit.write(node, "gelu", x=emit.input(node, 0), mode=mode)


def negate(emit: Emitter, node: Node) -> None:
    """mul by -1."""
    value = emit.input(node, 0)
    minus = emit.float_dtype(-1) if emit.is_float(value) else np.int32(-1)
    emit.write(node, "mul", x=value, y=minus)


def reciprocal(emit: Emitter, node: Node) -> None:
    """1 / x; ``inverse`` adds an epsilon."""
    emit.write(node, "real_div", x=emit.float_dtype(1), y=emit.input(node, 0))


def log(emit: Emitter, node: Node) -> None:
    """log, its epsilon 0."""
    emit.write(node, "log", x=emit.input(node, 0), epsilon=emit.float_dtype(0))


def softmax(emit: Emitter, node: Node) -> None:
    """softmax."""
    emit.write(node, "softmax", x=emit.input(node, 0), axis=np.int32(node.get("axis", -1)))


def batch_norm(emit: Emitter, node: Node) -> None:
    """batch_norm with constant parameters."""
    gamma, beta, mean, variance = (emit.typed(emit.fixed(node, index, "parameter")) for index in range(1, 5))
    emit.write(
        node, "batch_norm", x=emit.input(node, 0), mean=mean, variance=variance, gamma=gamma, beta=beta,
        epsilon=emit.float_dtype(float(node.get("epsilon", 1e-5))),
    )  # fmt: skip
