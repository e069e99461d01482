"""Rules whose breach costs speed, or holds on some versions only.

Source: "Q/DQ Layer-Placement Recommendations" of NVIDIA's TensorRT documentation, ``docs/operators.md`` of
onnx/onnx-tensorrt for the opsets, and TensorRT-RTX 1.7 for transposed convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgeq.runtimes.tensorrt.findings import Finding, Severity
from edgeq.runtimes.tensorrt.view import View, node_label
from edgeq.types import COMPUTE_OPS

__all__ = ["high_opset", "layer_output_pair", "one_sided_add", "transposed_convolution"]

_HIGHEST_OPSET = 20
_ACTIVATIONS = (
    "Clip",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "PRelu",
    "Relu",
    "Sigmoid",
    "Tanh",
)


def high_opset(view: View) -> Iterator[Finding]:
    """JetPack 6 has TensorRT 10.3, which reads opset 9 to 20."""
    if view.opset > _HIGHEST_OPSET:
        yield _note(
            "high-opset",
            "",
            f"opset {view.opset}: TensorRT 10.3 of JetPack 6 reads opset 9 to {_HIGHEST_OPSET}",
            f"export with opset {_HIGHEST_OPSET} or lower for JetPack 6",
        )


def layer_output_pair(view: View) -> Iterator[Finding]:
    """A layer's output goes to its activation in float, or the two are not fused."""
    for node in view.nodes(*COMPUTE_OPS):
        for quantise in view.readers.get(node.output[0], []):
            behind = _behind_pair(view, quantise.output[0]) if quantise.op_type == "QuantizeLinear" else []
            names = [reader.op_type for reader in behind]
            # Where another layer reads the rounded value too, the pair has to be there.
            if names and all(name in (*_ACTIVATIONS, "Add") for name in names):
                yield _note(
                    "layer-output-pair",
                    node_label(node),
                    f"a pair stands between it and its {names[0]}: the two cannot be fused",
                    "put the pair behind the activation or the add",
                )


def one_sided_add(view: View) -> Iterator[Finding]:
    """A residual add reads INT8 on both sides, but for what comes straight from a layer."""
    for node in view.nodes("Add"):
        sides = [name for name in node.input if name not in view.derived]
        float_sides = [name for name in sides if name not in view.pairs]
        if len(sides) != 2 or len(float_sides) != 1:
            continue
        producer = view.producers.get(float_sides[0])
        if producer is None or producer.op_type not in COMPUTE_OPS:
            yield _note(
                "one-sided-add",
                node_label(node),
                f"{float_sides[0]} comes in float and the other operand in INT8",
                "quantise both operands of a residual add",
            )


def transposed_convolution(view: View) -> Iterator[Finding]:
    """TensorRT-RTX ran every quantised ConvTranspose in float."""
    for node in view.nodes("ConvTranspose"):
        if len(node.input) > 1 and node.input[0] in view.pairs and node.input[1] in view.pairs:
            yield _note(
                "transposed-convolution",
                node_label(node),
                "a quantised ConvTranspose: TensorRT-RTX 1.7 runs each in float, whatever its scales",
                "audit it on the device; keep it in float where it is float anyway",
            )


def _behind_pair(view: View, quantised: str) -> list[onnx.NodeProto]:
    return [
        reader
        for dequantise in view.readers.get(quantised, [])
        if dequantise.op_type == "DequantizeLinear"
        for reader in view.readers.get(dequantise.output[0], [])
    ]


def _note(rule: str, node: str, message: str, fix: str) -> Finding:
    return Finding(rule, Severity.NOTE, node, message, fix)
