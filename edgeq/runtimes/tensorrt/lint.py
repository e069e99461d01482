"""The linter: is a QDQ model valid for TensorRT 10 and 11, and what would silently run in float?

Rules are functions of a `View`, in three groups by what their breach leads to. Pure Python over onnx: it
needs neither a GPU nor anything of NVIDIA's. What it says of layers is a prediction by rules; only a
build shows it (`edgeq.runtimes.tensorrt.conformance`, or the audit on the device).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx

from edgeq.errors import ModelError
from edgeq.runtimes.tensorrt import rules_float, rules_notes, rules_refused
from edgeq.runtimes.tensorrt.findings import Finding, Severity
from edgeq.runtimes.tensorrt.layers import Wanted
from edgeq.runtimes.tensorrt.view import View, node_label
from edgeq.types import COMPUTE_OPS

__all__ = ["RULES", "lint", "read_model", "wanted_layers"]

Rule = Callable[[View], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    rules_refused.opset,
    rules_refused.integer_op,
    rules_refused.foreign_op,
    rules_refused.tensor_dtype,
    rules_refused.quantised_dtype,
    rules_refused.zero_point,
    rules_refused.zero_point_count,
    rules_refused.scale_value,
    rules_refused.scale_dtype,
    rules_refused.scale_constant,
    rules_refused.scale_count,
    rules_refused.bias_dtype,
    rules_float.one_side,
    rules_float.op_between,
    rules_float.weight_behind_op,
    rules_float.weight_axis,
    rules_float.per_channel_activation,
    rules_float.lone_quantize,
    rules_notes.high_opset,
    rules_notes.layer_output_pair,
    rules_notes.one_sided_add,
    rules_notes.transposed_convolution,
)


def lint(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """Broken rules, the severest first.

    Raises:
        ModelError: the nodes are not in the order of their data.
    """
    view = View.of(model)
    found = [finding for rule in RULES for finding in rule(view)]
    order = list(Severity)
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def wanted_layers(model: onnx.ModelProto, findings: Sequence[Finding]) -> tuple[Wanted, ...]:
    """Convolutions and matrix products, each with what the rules say keeps it in float.

    Args:
        model: QDQ or float model.
        findings: of :func:`lint` for it.
    """
    view = View.of(model)
    silent = {entry.node: entry for entry in findings if entry.severity is Severity.SILENT_FLOAT}
    found = []
    for node in view.nodes(*COMPUTE_OPS):
        name = node_label(node)
        operands = [entry for entry in node.input[:2] if entry in view.pairs]
        why = "" if operands else "not quantised in the model"
        if name in silent:
            why = f"{silent[name].rule}: {silent[name].message}"
        found.append(Wanted(name, node.op_type, why))
    return tuple(found)


def read_model(path: Path) -> onnx.ModelProto:
    """An ONNX file.

    Raises:
        ModelError: there is none, or it is none.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own DecodeError; any failure here means "not ONNX"
        raise ModelError(f"{path} cannot be read as ONNX: {error}", fix="check the path") from error
    if not model.graph.node:
        raise ModelError(f"{path} is not an ONNX model, or an empty one", fix="check the path")
    return model
