"""Small ONNX graphs, their packages, and what the interpreter makes of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.runtimes.coreml.interpret.program import Interpreter, load_program
from edgeq.runtimes.coreml.lower import write_package
from edgeq.runtimes.coreml.source import read_source
from tests.quantize.nets import run

pytest.importorskip("coremltools", reason="coremltools is not installed")


class Graph:
    """Any ONNX graph with one float input ``x``, node by node."""

    def __init__(self, *shape, opset=17):
        self.nodes, self.constants, self.opset, self.shape = [], [], opset, shape
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]

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


def image(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def package(data: bytes, folder: Path, *, half=False, **options) -> Path:
    return write_package(read_source(data), folder / "model.mlpackage", half=half, **options).path


def interpret(path: Path, tensor):
    """Outputs of a saved package by name."""
    program = load_program(path)
    (name,) = program.inputs
    return Interpreter(program).run({name: tensor})


def assert_same(data: bytes, tensor, *, half=False, atol=1e-5, rtol=1e-5):
    """The saved float program computes what ONNX Runtime does."""
    names = [output.name for output in onnx.load_from_string(data).graph.output]
    with tempfile.TemporaryDirectory() as folder:
        found = interpret(package(data, Path(folder), half=half), tensor)
    assert list(found) == names
    for name, want in zip(names, run(data, tensor, names), strict=True):
        assert found[name].shape == want.shape
        np.testing.assert_allclose(found[name].astype(want.dtype), want, atol=atol, rtol=rtol)
