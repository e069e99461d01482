"""Runs .tflite bytes and compares them with ONNX Runtime on the same graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.runtimes.base import LowerOptions
from edgeq.runtimes.tflite.lower import convert
from tests.quantize.nets import run

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")


def interpreter(data: bytes, *, xnnpack: bool = True):
    kinds = litert.OpResolverType
    kind = kinds.AUTO if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    made = litert.Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
    made.allocate_tensors()
    return made


def run_tflite(data: bytes, image, *, xnnpack: bool = True) -> dict[str, np.ndarray]:
    """Outputs by signature name for one input in ONNX's layout."""
    made = interpreter(data, xnnpack=xnnpack)
    entry = made.get_input_details()[0]
    tensor = np.transpose(image, (0, 2, 3, 1)) if image.ndim == 4 else image
    runner = made.get_signature_runner()
    (name,) = runner.get_input_details()
    assert tuple(entry["shape"]) == tensor.shape
    return {key: np.asarray(value) for key, value in runner(**{name: tensor}).items()}


def ops(data: bytes) -> Counter[str]:
    """How many operators of each kind the file has."""
    details = interpreter(data, xnnpack=False)._get_ops_details()
    return Counter(entry["op_name"] for entry in details)


def delegates(data: bytes) -> tuple[int, list[str]]:
    """How many pieces XNNPACK takes, and the ops that it leaves."""
    details = interpreter(data)._get_ops_details()
    left = _undelegated(data, details)
    return sum(entry["op_name"] == "DELEGATE" for entry in details), left


def _undelegated(data: bytes, details) -> list[str]:
    """Ops between the delegate's nodes: those whose outputs no delegate node writes."""
    written = [set(map(int, entry["outputs"])) for entry in details if entry["op_name"] == "DELEGATE"]
    first = next(
        (index for index, entry in enumerate(details) if entry["op_name"] == "DELEGATE"), len(details)
    )
    # The interpreter lists the original ops, then the delegate's; an op runs itself where its output is
    # read by a delegate or is an output and no delegate writes it.
    read = {int(index) for entry in details[first:] for index in entry["inputs"]}
    inner = set().union(*written) if written else set()
    return [
        entry["op_name"]
        for entry in details[:first]
        if set(map(int, entry["outputs"])) & read and not set(map(int, entry["outputs"])) & inner
    ]


class Graph:
    """Any ONNX graph with one or more float inputs, node by node."""

    def __init__(self, *shape, opset=17):
        self.nodes, self.constants, self.opset = [], [], opset
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        self.shape = shape

    def constant(self, array, dtype=None):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"{kind}{len(self.nodes)}_{index}" for index in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, name=f"node{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def build(self, *outputs) -> bytes:
        entries = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, entries, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True).SerializeToString()


def assert_same(data: bytes, image, *, atol=1e-4, rtol=1e-4, xnnpack=True) -> bytes:
    """The float .tflite computes what ONNX Runtime does; returns the file."""
    made = convert(data, LowerOptions())
    found = run_tflite(made, image, xnnpack=xnnpack)
    names = [output.name for output in onnx.load_from_string(data).graph.output]
    expected = run(data, image, names)
    assert set(found) == set(names)
    for name, want in zip(names, expected, strict=True):
        assert found[name].shape == want.shape
        np.testing.assert_allclose(found[name].astype(want.dtype), want, atol=atol, rtol=rtol)
    return made
