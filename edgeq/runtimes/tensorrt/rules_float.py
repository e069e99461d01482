"""Rules whose breach TensorRT accepts without a word, and runs the layer in float.

Each was seen in the layer types of an engine that TensorRT-RTX 1.7 built from the models in the tests.
Only one of them is told of a layer: the first that holds.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgeq.runtimes.tensorrt.findings import Finding, Severity
from edgeq.runtimes.tensorrt.view import Pair, View, node_label
from edgeq.types import COMPUTE_OPS

__all__ = [
    "lone_quantize",
    "one_side",
    "op_between",
    "per_channel_activation",
    "weight_axis",
    "weight_behind_op",
]

_READS_INT8 = frozenset(
    {"DequantizeLinear", "MaxPool", "Reshape", "Transpose", "Flatten", "Identity", "Slice", "Split", "Concat"}
)


def op_between(view: View) -> Iterator[Finding]:
    """Between DequantizeLinear and layer stands only what moves values."""
    for node, activation, _ in _layers(view):
        found = None if activation is not None else view.blocking(node.input[0])
        if found is not None:
            yield _finding(
                "op-between",
                node,
                f"{found.op_type} {node_label(found)} stands between its input and the pair: "
                "TensorRT moves DequantizeLinear through pools of maxima and reshapes, through nothing else",
                "put a pair behind it",
            )


def one_side(view: View) -> Iterator[Finding]:
    """An INT8 layer has a pair on its input and on its weight."""
    for node, activation, weight in _layers(view):
        if (activation is None) == (weight is None):
            continue
        if activation is None and view.blocking(node.input[0]) is not None:
            continue  # op_between tells it better
        if weight is None and _behind_op(view, node) is not None:
            continue
        missing = "input" if activation is None else "weight"
        yield _finding(
            "one-side",
            node,
            f"its {missing} is float while the other operand is quantised",
            f"quantise the {missing} too, or neither",
        )


def weight_behind_op(view: View) -> Iterator[Finding]:
    """A weight's DequantizeLinear feeds the layer itself."""
    for node, activation, _ in _layers(view):
        found = _behind_op(view, node)
        if activation is not None and found is not None:
            yield _finding(
                "weight-behind-op",
                node,
                f"{found.op_type} {node_label(found)} stands between its weight and DequantizeLinear",
                "apply it to the constant before quantising",
            )


def weight_axis(view: View) -> Iterator[Finding]:
    """Scales per channel lie along the layer's output channels."""
    for node, activation, weight in _layers(view):
        if activation is None or weight is None or not weight.constant or not weight.direct:
            continue
        scale = view.array(weight.scale)
        tensor = view.constants.get(weight.dequantize.input[0])
        rank = 4 if tensor is None else len(tensor.dims)
        if scale is None or scale.size == 1 or scale.ndim != 1:
            continue
        axis, wanted = _axis(weight.dequantize, rank), _output_axis(node, rank)
        if axis != wanted:
            yield _finding(
                "weight-axis",
                node,
                f"its weight has a scale for each slice along axis {axis}; TensorRT's {node.op_type} "
                f"takes axis {wanted}, the output channels",
                f"quantise the weight along axis {wanted}",
            )


def per_channel_activation(view: View) -> Iterator[Finding]:
    """Activations have one scale."""
    for node, activation, weight in _layers(view):
        if activation is None or weight is None or activation.constant:
            continue
        scale = view.array(activation.scale)
        if scale is not None and scale.size > 1:
            yield _finding(
                "per-channel-activation",
                node,
                f"its input has {scale.size} scales: TensorRT quantises activations per tensor",
                "one scale per tensor; edgeq's depthwise equalisation makes up for it",
            )


def lone_quantize(view: View) -> Iterator[Finding]:
    """What QuantizeLinear makes goes to DequantizeLinear, possibly through ops that move values."""
    for node in view.nodes("QuantizeLinear"):
        for reader in view.readers.get(node.output[0] if node.output else "", []):
            if reader.op_type not in _READS_INT8:
                yield _finding(
                    "lone-quantize",
                    node,
                    f"{reader.op_type} {node_label(reader)} reads the integers: what follows runs in float",
                    "put a DequantizeLinear with the same scale behind it",
                )


def _layers(view: View) -> Iterator[tuple[onnx.NodeProto, Pair | None, Pair | None]]:
    """Layers with the pairs of input and second operand."""
    for node in view.nodes(*COMPUTE_OPS):
        if len(node.input) >= 2:
            yield node, view.pairs.get(node.input[0]), _operand(view, node.input[1])


def _operand(view: View, name: str) -> Pair | None:
    """The pair of a weight (which must be direct) or of a second activation."""
    found = view.pairs.get(name)
    return None if found is not None and found.constant and not found.direct else found


def _behind_op(view: View, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The op between a weight and its DequantizeLinear."""
    found = view.pairs.get(node.input[1])
    if found is not None and found.constant and not found.direct:
        return view.producers.get(node.input[1])
    blocked = view.blocking(node.input[1])
    if blocked is None:
        return None
    sources = [view.pairs[name] for name in blocked.input if name in view.pairs]
    return blocked if sources and all(source.constant for source in sources) else None


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "MatMul":
        return rank - 1
    transposed = next((entry.i for entry in node.attribute if entry.name == "transB"), 0)
    return 0 if transposed else 1


def _axis(node: onnx.NodeProto, rank: int) -> int:
    axis = next((int(entry.i) for entry in node.attribute if entry.name == "axis"), 1)
    return axis + rank if axis < 0 else axis


def _finding(rule: str, node: onnx.NodeProto, message: str, fix: str) -> Finding:
    return Finding(rule, Severity.SILENT_FLOAT, node_label(node), message, fix)
