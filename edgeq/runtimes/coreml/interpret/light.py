"""All other operations of programs that edgeq writes, in numpy. Semantics: coremltools' MIL op reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LIGHT", "MOVES"]

Array = npt.NDArray[Any]
Arguments = Mapping[str, Any]
MOVES = frozenset({
    "concat", "depth_to_space", "gather", "gather_along_axis", "gather_nd", "identity", "max_pool",
    "maximum", "minimum", "pixel_shuffle", "reduce_argmax", "reduce_max", "relu", "reshape", "slice_by_index",
    "space_to_depth", "split", "squeeze", "tile", "topk", "transpose", "upsample_nearest_neighbor",
})  # fmt: skip
"""They give values that they were given: nothing to round."""


def _unary(function: Callable[[Array], Array]) -> Callable[[Arguments], Array]:
    return lambda a: function(a["x"])


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[Arguments], Array]:
    return lambda a: function(np.asarray(a["x"]), np.asarray(a["y"]))


def _gelu(a: Arguments) -> Array:
    x = a["x"]
    if a.get("mode", "EXACT") == "TANH_APPROXIMATION":
        inner = np.sqrt(np.float32(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)), np.float32)
    return np.asarray(0.5 * x * (1 + _erf(x / np.float32(np.sqrt(2)))), np.float32)


def _erf(x: Array) -> Array:
    from math import erf

    return np.asarray(np.vectorize(erf, otypes=[np.float32])(x), np.float32)


def _along(parameter: Any, axis: Any, rank: int) -> Array:
    found = np.asarray(parameter)
    if found.ndim == 0 or axis is None:
        return found
    return found.reshape([-1 if index == int(axis) % rank else 1 for index in range(rank)])


def _quantize(a: Arguments) -> Array:
    """``clip(round(input / scale) + zero_point)``, half to even as ONNX does."""
    x, axis = a["input"], a.get("axis")
    info = np.iinfo(str(a["output_dtype"]))
    zero = _along(a["zero_point"], axis, x.ndim).astype(np.float32) if a.get("zero_point") is not None else 0
    scale = _along(a["scale"], axis, x.ndim).astype(np.float32)
    return np.asarray(np.clip(np.rint(x / scale) + zero, info.min, info.max), info.dtype)


def _dequantize(a: Arguments) -> Array:
    """``scale * (input - zero_point)``."""
    x, axis = a["input"].astype(np.float32), a.get("axis")
    if a.get("zero_point") is not None:
        x = x - _along(a["zero_point"], axis, x.ndim).astype(np.float32)
    return np.asarray(x * _along(a["scale"], axis, x.ndim).astype(np.float32), np.float32)


def _cast(a: Arguments) -> Array:
    kind = {"fp16": np.float32, "fp32": np.float32, "int32": np.int32, "bool": np.bool_}[str(a["dtype"])]
    return np.asarray(a["x"]).astype(kind)


def _axes(a: Arguments) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.asarray(a["axes"]).reshape(-1))


def _reduce(function: Callable[..., Any]) -> Callable[[Arguments], Array]:
    return lambda a: np.asarray(function(a["x"], axis=_axes(a), keepdims=bool(a.get("keep_dims", False))))


def _slice(a: Arguments) -> Array:
    x = a["x"]
    begin, end = np.asarray(a["begin"]), np.asarray(a["end"])
    stride = np.asarray(a["stride"]) if a.get("stride") is not None else np.ones(x.ndim, int)
    begin_mask = np.asarray(a["begin_mask"]) if a.get("begin_mask") is not None else np.zeros(x.ndim, bool)
    end_mask = np.asarray(a["end_mask"]) if a.get("end_mask") is not None else np.zeros(x.ndim, bool)
    parts = tuple(
        slice(None if begin_mask[i] else int(begin[i]), None if end_mask[i] else int(end[i]), int(stride[i]))
        for i in range(x.ndim)
    )
    return np.asarray(x[parts])


def _split(a: Arguments) -> tuple[Array, ...]:
    ends = np.cumsum(np.asarray(a["split_sizes"]))[:-1]
    return tuple(np.split(a["x"], ends, axis=int(a["axis"])))


def _space_to_depth(a: Arguments) -> Array:
    x, size = a["x"], int(a["block_size"])
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // size, size, w // size, size)
    return np.asarray(blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * size * size, h // size, w // size))


def _depth_to_space(a: Arguments) -> Array:
    x, size = a["x"], int(a["block_size"])
    n, c, h, w = x.shape
    blocks = x.reshape(n, size, size, c // size**2, h, w)
    return np.asarray(blocks.transpose(0, 3, 4, 1, 5, 2).reshape(n, c // size**2, h * size, w * size))


def _pixel_shuffle(a: Arguments) -> Array:
    x, size = a["x"], int(a["upscale_factor"])
    n, c, h, w = x.shape
    blocks = x.reshape(n, c // size**2, size, size, h, w)
    return np.asarray(blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // size**2, h * size, w * size))


def _nearest(a: Arguments) -> Array:
    rows, columns = int(a["scale_factor_height"]), int(a["scale_factor_width"])
    return np.asarray(np.repeat(np.repeat(a["x"], rows, axis=2), columns, axis=3))


def _pad(a: Arguments) -> Array:
    x, pads = a["x"], np.asarray(a["pad"]).reshape(-1, 2)
    full = [(0, 0)] * (x.ndim - len(pads)) + [(int(before), int(after)) for before, after in pads]
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[str(a["mode"])]
    more = {"constant_values": float(a["constant_val"])} if mode == "constant" else {}
    padded: Array = np.pad(x, full, mode=mode, **more)  # type: ignore[call-overload]
    return padded


def _top_k(a: Arguments) -> tuple[Array, Array]:
    x, axis, count = a["x"], int(a["axis"]), int(a["k"])
    order = np.argsort(x if bool(a.get("ascending", False)) else -x, axis=axis, kind="stable")
    first = np.take(order, np.arange(count), axis=axis)
    return np.take_along_axis(x, first, axis=axis), first.astype(np.int32)


def _gather_nd(a: Arguments) -> Array:
    x, indices, skip = np.asarray(a["x"]), np.asarray(a["indices"]), int(a.get("batch_dims", 0))
    if skip == 0:
        return np.asarray(x[tuple(np.moveaxis(indices, -1, 0))])
    rows = [_gather_nd({"x": v, "indices": i, "batch_dims": skip - 1}) for v, i in zip(x, indices)]
    return np.stack(rows)


def _per_channel(parameter: Any, rank: int) -> Array:
    return np.asarray(parameter, np.float32).reshape([-1 if index == 1 else 1 for index in range(rank)])


def _prelu(a: Arguments) -> Array:
    x = a["x"]
    return np.asarray(np.where(x > 0, x, x * _per_channel(a["alpha"], x.ndim)))


def _batch_norm(a: Arguments) -> Array:
    x = a["x"]
    mean, variance, gamma, beta = (_per_channel(a[k], x.ndim) for k in ("mean", "variance", "gamma", "beta"))
    return np.asarray((x - mean) / np.sqrt(variance + np.float32(a["epsilon"])) * gamma + beta)


def _hard_sigmoid(a: Arguments) -> Array:
    return np.asarray(np.clip(a["x"] * np.float32(a["alpha"]) + np.float32(a["beta"]), 0, 1))


def _elu(a: Arguments) -> Array:
    x = a["x"]
    return np.asarray(np.where(x > 0, x, np.float32(a["alpha"]) * np.expm1(np.minimum(x, 0))))


def _quotient(x: Array, y: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(x / y, np.float32)


LIGHT: dict[str, Callable[[Arguments], Any]] = {
    "abs": _unary(np.abs),
    "add": _binary(np.add),
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": lambda a: np.clip(a["x"], np.float32(a["alpha"]), np.float32(a["beta"])),
    "concat": lambda a: np.concatenate(a["values"], axis=int(a["axis"])),
    "cos": _unary(np.cos),
    "depth_to_space": _depth_to_space,
    "dequantize": _dequantize,
    "elu": _elu,
    "equal": _binary(np.equal),
    "erf": _unary(_erf),
    "exp": _unary(np.exp),
    "floor": _unary(np.floor),
    "floor_div": _binary(np.floor_divide),
    "gather": lambda a: np.take(a["x"], np.asarray(a["indices"]), axis=int(a["axis"])),
    "gather_along_axis": lambda a: np.take_along_axis(a["x"], np.asarray(a["indices"]), axis=int(a["axis"])),
    "gather_nd": _gather_nd,
    "gelu": _gelu,
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "identity": _unary(lambda x: x),
    "leaky_relu": lambda a: np.where(a["x"] > 0, a["x"], a["x"] * np.float32(a["alpha"])),
    "less": _binary(np.less),
    "log": lambda a: np.log(a["x"] + np.float32(a["epsilon"])),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pow": _binary(np.power),
    "prelu": _prelu,
    "quantize": _quantize,
    "real_div": _binary(_quotient),
    "reduce_argmax": lambda a: _arg_max(a),
    "reduce_max": _reduce(np.max),
    "reduce_mean": _reduce(np.mean),
    "reduce_min": _reduce(np.min),
    "reduce_sum": _reduce(np.sum),
    "relu": _unary(lambda x: np.maximum(x, np.float32(0))),
    "relu6": _unary(lambda x: np.clip(x, np.float32(0), np.float32(6))),
    "reshape": lambda a: np.reshape(a["x"], [int(size) for size in np.asarray(a["shape"])]),
    "select": lambda a: np.where(a["cond"], a["a"], a["b"]),
    "sigmoid_hard": _hard_sigmoid,
    "sin": _unary(np.sin),
    "slice_by_index": _slice,
    "softplus": _unary(lambda x: np.logaddexp(x, np.float32(0))),
    "space_to_depth": _space_to_depth,
    "split": _split,
    "sqrt": _unary(np.sqrt),
    "sub": _binary(np.subtract),
    "tanh": _unary(np.tanh),
    "tile": lambda a: np.tile(a["x"], [int(count) for count in np.asarray(a["reps"])]),
    "topk": _top_k,
    "transpose": lambda a: np.transpose(a["x"], [int(axis) for axis in np.asarray(a["perm"])]),
    "upsample_nearest_neighbor": _nearest,
}


def _arg_max(a: Arguments) -> Array:
    axis = int(a["axis"])
    found = np.argmax(a["x"], axis=axis)
    return (
        np.expand_dims(found, axis).astype(np.int32) if bool(a.get("keep_dims")) else found.astype(np.int32)
    )
