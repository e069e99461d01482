"""Which tensors get a grid, and which of them must share one."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgeq.quantize.graph import ACTIVATION_OPS, head_nodes, node_name, tail_nodes, users
from edgeq.quantize.plan import OpPlan
from edgeq.quantize.recipe import Precision
from edgeq.quantize.scheme import Placement, Scheme
from edgeq.types import COMPUTE_OPS

__all__ = ["grid_roots", "joined_outputs", "quantised_values"]

_DATA_INPUTS_ONLY_FIRST = frozenset(
    {"Resize", "Slice", "Split", "Reshape", "Clip", "Pad", "Squeeze", "Unsqueeze"}
)
"""Their other inputs are shapes, indices or limits."""


def quantised_values(model: ir.Model, scheme: Scheme, ops: Mapping[str, OpPlan]) -> list[ir.Value]:
    """Values that get a QuantizeLinear/DequantizeLinear pair, in graph order."""
    wanted: dict[ir.Value, None] = {}
    every = scheme.placement is Placement.EVERY_TENSOR
    for node in model.graph:
        if ops[node_name(node)].precision is not Precision.INT8:
            continue
        if every or node.op_type not in ACTIVATION_OPS:
            wanted.update(dict.fromkeys(_data_inputs(node)))
        if every:
            wanted.update(dict.fromkeys(node.outputs))
    if not every:
        wanted = {value: None for value in wanted if not _on_a_grid_already(value, scheme, ops)}
    heads = head_nodes(model.graph, tail_nodes(model.graph))
    exact = {node.outputs[0] for node in heads if node.op_type in scheme.float_output_ops}
    wanted = {
        value: None for value in wanted if value not in exact and not _inside_fusion(value, scheme, ops)
    }
    order = {value: index for index, value in enumerate(_all_values(model))}
    return sorted(wanted, key=order.__getitem__)


def grid_roots(
    model: ir.Model, scheme: Scheme, ops: Mapping[str, OpPlan], values: list[ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Value -> the value whose grid it takes; a root maps to itself.

    An INT8 op that only moves values hands the grid of its input on; a joining one hands its output's
    grid back to inputs of its own.
    """
    quantised = set(values)
    roots: dict[ir.Value, ir.Value] = {}
    for value in values:
        producer = value.producer()
        root = value
        if producer is not None and producer.op_type in scheme.shared_scale_ops and producer.inputs:
            source = producer.inputs[0]
            int8 = ops[node_name(producer)].precision is Precision.INT8
            if int8 and source is not None and source in quantised:
                root = roots[source]
        roots[value] = root
    # From the last to the first, so that a concatenation of concatenations hands on what it was handed.
    for value in reversed(values):
        joined = _joined_output(value, scheme, ops) if roots[value] is value else None
        if joined is not None and joined in quantised:
            roots[value] = roots[joined]
    return roots


def _joined_output(value: ir.Value, scheme: Scheme, ops: Mapping[str, OpPlan]) -> ir.Value | None:
    """The output of the INT8 joining op that alone reads a value; None: the value keeps its own grid."""
    producer, readers = value.producer(), users(value)
    if len(readers) != 1 or readers[0].op_type not in scheme.joining_ops or value.is_graph_output():
        return None
    fixed = producer is not None and producer.op_type in scheme.fixed_outputs
    int8 = ops[node_name(readers[0])].precision is Precision.INT8
    return readers[0].outputs[0] if int8 and not fixed else None


def joined_outputs(
    model: ir.Model, scheme: Scheme, ops: Mapping[str, OpPlan]
) -> dict[ir.Value, list[ir.Value]]:
    """Value -> outputs of the joining ops (Concat) with which it has to share one grid.

    Directly, through ops that only move values, or through another value that two such ops read. Values
    that are joined with nothing are left out.
    """
    groups: dict[ir.Value, list[ir.Value]] = {}
    outputs: dict[ir.Value, None] = {}
    for node in model.graph:
        if ops[node_name(node)].precision is not Precision.INT8:
            continue
        if node.op_type in scheme.one_grid_ops:
            outputs[node.outputs[0]] = None
        if node.op_type in scheme.one_grid_ops | scheme.shared_scale_ops:
            members = [*_data_inputs(node), *node.outputs]
            merged = list(dict.fromkeys(m for v in members for m in groups.get(v, [v])))
            groups.update(dict.fromkeys(merged, merged))
    return {value: found for value, group in groups.items() if (found := [v for v in group if v in outputs])}


def _on_a_grid_already(value: ir.Value, scheme: Scheme, ops: Mapping[str, OpPlan]) -> bool:
    """Whether an INT8 op that only moves or joins rounded values makes it."""
    producer = value.producer()
    return (
        producer is not None
        and ops[node_name(producer)].precision is Precision.INT8
        and producer.op_type in scheme.shared_scale_ops | scheme.one_grid_ops
    )


def _inside_fusion(value: ir.Value, scheme: Scheme, ops: Mapping[str, OpPlan]) -> bool:
    """Whether a value exists only between a convolution and the activation folded into it."""
    producer, readers = value.producer(), users(value)
    if producer is None or producer.op_type not in COMPUTE_OPS or len(readers) != 1:
        return False
    pair = (producer, readers[0])
    return readers[0].op_type in scheme.fused_activations and all(
        ops[node_name(node)].precision is Precision.INT8 for node in pair
    )


def _data_inputs(node: ir.Node) -> list[ir.Value]:
    inputs = node.inputs[:1] if node.op_type in _DATA_INPUTS_ONLY_FIRST else node.inputs
    return [value for value in inputs if value is not None and value.const_value is None]


def _all_values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
