"""Which nodes compute on integers: those whose operands and results all have grids that TFLite takes.

Source: the checks of ``tflite/kernels`` and ``tflite/delegates/xnnpack/xnnpack_delegate.cc`` of
google-ai-edge/LiteRT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgeq.runtimes.tflite.graph import Graph, Grid, Node
from edgeq.types import COMPUTE_OPS

__all__ = ["LOGISTIC_GRID", "LOGISTIC_GRID_16", "mark_integer"]

LOGISTIC_GRID = (1 / 256, -128)
"""Scale and zero point that the int8 kernel of LOGISTIC has to write to."""
LOGISTIC_GRID_16 = (1 / 32768, 0)
_ACTIVATIONS = ("int8", "int16")
_ALL_INPUTS = frozenset({"Add", "Sub", "Mul", "Concat"})
_FIRST_INPUT = frozenset(
    {
        *("AveragePool", "DepthToSpace", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Pad"),
        *("ReduceMean", "Relu", "Clip", "Reshape", "Resize", "Sigmoid", "Slice", "SpaceToDepth", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    }
)
_MOVES = frozenset(
    {
        *("DepthToSpace", "Flatten", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    }
)


def mark_integer(graph: Graph) -> Graph:
    """The graph with ``Node.integer`` set where every operand and result is on a grid."""
    readers = graph.readers()
    done: list[Node] = []
    for node in graph.nodes:
        integer = node.integer or (_inputs_fit(graph, node) and _outputs_fit(graph, node, readers))
        done.append(replace(node, integer=integer and _special(graph, node)))
    return graph.with_nodes(done)


def _inputs_fit(graph: Graph, node: Node) -> bool:
    if node.op in COMPUTE_OPS:
        return _activation(graph, node, 0) and _weight_fits(graph, node)
    if node.op in _ALL_INPUTS:
        return all(_activation(graph, node, index) for index in range(len(node.inputs)))
    return node.op in _FIRST_INPUT and _activation(graph, node, 0)


def _activation(graph: Graph, node: Node, index: int) -> bool:
    operand = node.input(index)
    grid = graph.values[operand.name].grid if operand.rounded else None
    return grid is not None and grid.dtype in _ACTIVATIONS and grid.axis is None


def _weight_fits(graph: Graph, node: Node) -> bool:
    operand = node.input(1)
    value = graph.values[operand.name]
    grid = value.grid
    if not value.constant or grid is None or grid.dtype != "int8" or not grid.symmetric:
        return False
    bias = node.input(2)
    return not bias.name or graph.values[bias.name].constant


def _outputs_fit(graph: Graph, node: Node, readers: dict[str, list[Node]]) -> bool:
    for name in node.outputs:
        grid = graph.values[name].grid
        if grid is None or grid.dtype not in _ACTIVATIONS:
            return False
        read = [
            operand for reader in readers.get(name, []) for operand in reader.inputs if operand.name == name
        ]
        if not all(operand.rounded for operand in read):
            return False
    return True


def _special(graph: Graph, node: Node) -> bool:
    check = _CHECKS.get(node.op)
    return check is None or check(graph, node)


def _out(graph: Graph, node: Node) -> Grid:
    grid = graph.values[node.outputs[0]].grid
    if grid is None:
        raise AssertionError(f"{node.name} was taken for an integer op without a grid")
    return grid


def _logistic(graph: Graph, node: Node) -> bool:
    if node.outputs[0] not in graph.values or graph.values[node.outputs[0]].grid is None:
        return False
    grid = _out(graph, node)
    fixed = LOGISTIC_GRID if grid.dtype == "int8" else LOGISTIC_GRID_16
    return (grid.scale[0], grid.zero_point[0]) == fixed


def _clip(graph: Graph, node: Node) -> bool:
    """On their own they are moved into the grid by nothing: float, between DEQUANTIZE and QUANTIZE."""
    return False


def _plain_mean(graph: Graph, node: Node) -> bool:
    """Every window has as many values, so that the mean is a convolution."""
    padded = any(node.get("pads", ())) or node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return not node.get("ceil_mode", 0) and (not padded or bool(node.get("count_include_pad", 0)))


_CHECKS: dict[str, Callable[[Graph, Node], bool]] = {
    "AveragePool": _plain_mean,
    "Sigmoid": _logistic,
    "Clip": _clip,
    "Relu": _clip,
}
