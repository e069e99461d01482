"""From grids and precisions to a plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.quantize.graph import constant_array, node_name, tail_nodes
from edgeq.quantize.observe import MOVES_DATA
from edgeq.quantize.plan import OpPlan, Plan, TensorPlan
from edgeq.quantize.precision import assign_precisions, matching_rules
from edgeq.quantize.recipe import Precision, Recipe
from edgeq.quantize.scheme import Scheme
from edgeq.quantize.tensors import grid_roots, joined_outputs, quantised_values
from edgeq.quantize.weights import QuantisedWeight, half_scale
from edgeq.types import Float32Array

__all__ = ["build_plan"]


def build_plan(
    model: ir.Model,
    scheme: Scheme,
    recipe: Recipe,
    grids: Mapping[str, TensorPlan],
    *,
    kept_float: Mapping[str, str] | None = None,
    score_layers: Collection[str] = (),
    bias_shifts: Mapping[str, Float32Array] | None = None,
    weights: Mapping[str, QuantisedWeight] | None = None,
) -> Plan:
    """Statistics (as grids), scheme and recipe, resolved.

    Args:
        model: normalised float model.
        scheme: the runtime's.
        recipe: the user's.
        grids: of every recorded tensor, from :func:`edgeq.quantize.auto.choose_grids`.
        kept_float: nodes that tuning keeps in float, with the reason.
        score_layers: see :func:`assign_precisions`.
        bias_shifts: node name -> correction of its bias.
        weights: node name -> its weight, where that is not simply rounded.

    Raises:
        RecipeError: a rule that matches nothing.
        ModelError: a tensor that an INT8 op needs was not recorded.
    """
    ops = assign_precisions(model, scheme, recipe, kept_float=kept_float, score_layers=score_layers)
    values = quantised_values(model, scheme, ops)
    roots = grid_roots(model, scheme, ops, values)
    joined = joined_outputs(model, scheme, ops)
    tensors = {
        value.name or "": _tensor_plan(value, joined.get(value, [roots[value]]), grids) for value in values
    }
    if scheme.half_scales:
        tensors = {name: _with_half_scale(tensor) for name, tensor in tensors.items()}
    shifts = {
        name: shift
        for name, shift in (bias_shifts or {}).items()
        if ops[name].precision is Precision.INT8 and ops[name].op_type != "MatMul"
    }
    return Plan(
        runtime=scheme.runtime,
        ops=ops,
        tensors=tensors,
        granularity=recipe.granularity,
        weight_range=recipe.weight_range,
        weight_bits=recipe.weight_bits or scheme.weight_bits,
        half_scales=scheme.half_scales,
        quantize_bias=scheme.quantize_bias,
        bias_shifts=shifts,
        stored_weights=_stored_weights(model, scheme, recipe, ops),
        weights=weights or {},
    )


def _stored_weights(
    model: ir.Model, scheme: Scheme, recipe: Recipe, ops: Mapping[str, OpPlan]
) -> frozenset[str]:
    """Float layers with INT8 weights; the tail's are numbers to decode with, not learned ones."""
    tail = tail_nodes(model.graph)
    asked = {name for name, rule in matching_rules(model, recipe.rules).items() if rule.precision is not None}
    return frozenset(
        name
        for node in model.graph
        if node.op_type in scheme.stored_weight_ops
        and node not in tail
        and (name := node_name(node)) not in asked
        and ops[name].precision is Precision.FLOAT
        and constant_array(node.inputs[1]) is not None
    )


def _tensor_plan(value: ir.Value, sources: Sequence[ir.Value], grids: Mapping[str, TensorPlan]) -> TensorPlan:
    """Its own grid, or the widest of those that it may have to share."""
    name = value.name or ""
    source = max((_recorded_source(entry, grids) for entry in sources), key=lambda key: _span(grids[key]))
    found = grids[source]
    if source == name:
        return found
    return TensorPlan(name, found.grid, f"shared with {source}")


def _with_half_scale(tensor: TensorPlan) -> TensorPlan:
    """The same with the next larger scale that float16 holds; per tensor only."""
    scale = float(half_scale(np.asarray(tensor.grid.scale)))
    return replace(tensor, grid=replace(tensor.grid, scale=scale))


def _span(tensor: TensorPlan) -> float:
    return tensor.grid.range.high - tensor.grid.range.low


def _recorded_source(value: ir.Value, grids: Mapping[str, TensorPlan]) -> str:
    """The recorded tensor whose values this one holds: itself, or what a moving op took them from."""
    current = value
    while current.name not in grids:
        producer = current.producer()
        source = producer.inputs[0] if producer is not None and producer.op_type in MOVES_DATA else None
        if source is None:
            raise ModelError(
                f"tensor {value.name!r} has no statistics",
                fix="calibrate again with --no-cache; please report it",
            )
        current = source
    return current.name or ""
