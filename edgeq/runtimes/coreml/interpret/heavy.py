"""Convolutions, matrix products, pools and sigmoids: each as a one-op ONNX model in ONNX Runtime.

That is where the simulation runs too. The last bit of a sigmoid is anybody's, and in an INT8 model it
decides roundings that then multiply: with the same arithmetic what differs is the program's own doing.

Each entry takes the arguments of the first call and gives a function of the arguments; weights stay in
the prepared session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError

__all__ = ["HEAVY"]

Array = npt.NDArray[Any]
Prepared = Callable[[Mapping[str, Any]], Array]


def _session(
    op: str, values: Mapping[str, Array], constants: set[str], attributes: Mapping[str, Any]
) -> Prepared:
    """A one-op model; ``values`` are its inputs in order, by argument name."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    kinds = {name: helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype) for name, array in values.items()}
    inputs = [
        helper.make_tensor_value_info(name, kinds[name], np.asarray(array).shape)
        for name, array in values.items()
        if name not in constants
    ]
    initializers = [
        onnx.numpy_helper.from_array(np.asarray(values[name]), name) for name in values if name in constants
    ]
    node = helper.make_node(op, list(values), ["result"], **attributes)
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], op, inputs, [result], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    # A thread pool for each of a hundred sessions would be in its own way.
    options.intra_op_num_threads = 1
    # Nor may it lay channels out in blocks, which adds up in another order than a QDQ model's convolutions.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    fed = [name for name in values if name not in constants]

    def call(arguments: Mapping[str, Any]) -> Array:
        feeds = {name: np.ascontiguousarray(arguments[name]) for name in fed}
        return np.asarray(session.run(None, feeds)[0])

    return call


def _pads(arguments: Mapping[str, Any]) -> list[int]:
    """ONNX's order of the pads: all ends before, then all after."""
    kind = arguments.get("pad_type", "valid")
    if kind == "valid":
        return [0] * 4
    if kind != "custom":
        raise ModelError(f"the interpreter has no pad_type {kind}", fix="lower the model with edgeq")
    pads = np.asarray(arguments["pad"]).reshape(-1, 2)
    return [int(entry) for entry in (*pads[:, 0], *pads[:, 1])]


def _ints(value: Any) -> list[int]:
    return [int(entry) for entry in np.asarray(value).reshape(-1)]


def _conv(op: str) -> Callable[[Mapping[str, Any]], Prepared]:
    def prepare(arguments: Mapping[str, Any]) -> Prepared:
        values = {key: arguments[key] for key in ("x", "weight", "bias") if arguments.get(key) is not None}
        attributes: dict[str, Any] = {
            "strides": _ints(arguments["strides"]), "dilations": _ints(arguments["dilations"]),
            "group": int(arguments["groups"]), "pads": _pads(arguments),
        }  # fmt: skip
        shape = arguments.get("output_shape")
        if op == "ConvTranspose" and shape is not None:
            attributes["output_padding"] = _output_padding(arguments, _ints(shape)[2:])
        return _session(op, values, {"weight", "bias"}, attributes)

    return prepare


def _output_padding(arguments: Mapping[str, Any], wanted: list[int]) -> list[int]:
    sizes, kernel = np.shape(arguments["x"])[2:], np.shape(arguments["weight"])[2:]
    strides, dilations = _ints(arguments["strides"]), _ints(arguments["dilations"])
    pads = np.asarray(_pads(arguments)).reshape(2, -1).sum(axis=0)
    plain = [
        (size - 1) * stride + (window - 1) * dilation + 1 - int(pad)
        for size, stride, window, dilation, pad in zip(sizes, strides, kernel, dilations, pads)
    ]
    return [want - got for want, got in zip(wanted, plain)]


def _linear(arguments: Mapping[str, Any]) -> Prepared:
    if np.ndim(arguments["x"]) == 2:
        values = {key: arguments[key] for key in ("x", "weight", "bias") if arguments.get(key) is not None}
        return _session("Gemm", values, {"weight", "bias"}, {"transB": 1})
    weight, bias = np.asarray(arguments["weight"], np.float32), arguments.get("bias")

    def call(given: Mapping[str, Any]) -> Array:
        product = np.asarray(given["x"], np.float32) @ weight.T
        return np.asarray(product if bias is None else product + np.asarray(bias, np.float32))

    return call


def _pool(op: str) -> Callable[[Mapping[str, Any]], Prepared]:
    def prepare(arguments: Mapping[str, Any]) -> Prepared:
        attributes: dict[str, Any] = {
            "kernel_shape": _ints(arguments["kernel_sizes"]), "strides": _ints(arguments["strides"]),
            "pads": _pads(arguments), "ceil_mode": int(bool(arguments.get("ceil_mode", False))),
        }  # fmt: skip
        if op == "AveragePool":
            exclude = bool(arguments.get("exclude_padding_from_average", False))
            attributes["count_include_pad"] = int(not exclude)
        return _session(op, {"x": arguments["x"]}, set(), attributes)

    return prepare


def _sigmoid(arguments: Mapping[str, Any]) -> Prepared:
    return _session("Sigmoid", {"x": arguments["x"]}, set(), {})


def _silu(arguments: Mapping[str, Any]) -> Prepared:
    sigmoid = _sigmoid(arguments)
    return lambda given: np.asarray(given["x"] * sigmoid(given))


def _softmax(arguments: Mapping[str, Any]) -> Prepared:
    return _session("Softmax", {"x": arguments["x"]}, set(), {"axis": int(arguments["axis"])})


def _matmul(arguments: Mapping[str, Any]) -> Prepared:
    def turned(given: Mapping[str, Any], name: str) -> Array:
        array = np.asarray(given[name], np.float32)
        return np.swapaxes(array, -1, -2) if bool(given.get(f"transpose_{name}", False)) else array

    product = _session("MatMul", {name: turned(arguments, name) for name in "xy"}, set(), {})
    return lambda given: product({name: turned(given, name) for name in "xy"})


def _bilinear(arguments: Mapping[str, Any]) -> Prepared:
    factors = [float(arguments[f"scale_factor_{side}"]) for side in ("height", "width")]
    if bool(arguments.get("align_corners", True)):
        kind = "align_corners"
    else:
        kind = "half_pixel" if bool(arguments.get("half_pixel_centers", False)) else "asymmetric"
    scales = np.asarray([1, 1, *factors], np.float32)
    values = {"x": arguments["x"], "roi": np.zeros(0, np.float32), "scales": scales}
    attributes = {"mode": "linear", "coordinate_transformation_mode": kind}
    return _session("Resize", values, {"roi", "scales"}, attributes)


HEAVY: dict[str, Callable[[Mapping[str, Any]], Prepared]] = {
    "avg_pool": _pool("AveragePool"),
    "conv": _conv("Conv"),
    "conv_transpose": _conv("ConvTranspose"),
    "linear": _linear,
    "matmul": _matmul,
    "max_pool": _pool("MaxPool"),
    "sigmoid": _sigmoid,
    "silu": _silu,
    "softmax": _softmax,
    "upsample_bilinear": _bilinear,
}
