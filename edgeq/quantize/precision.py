"""Which op computes in INT8 and which stays float, and why."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from edgeq.errors import RecipeError
from edgeq.quantize.graph import (
    activation_output,
    constant_array,
    head_nodes,
    node_name,
    tail_nodes,
    users,
)
from edgeq.quantize.plan import OpPlan
from edgeq.quantize.recipe import Precision, Recipe, Rule
from edgeq.quantize.scheme import Placement, Scheme
from edgeq.quantize.work import work_shares
from edgeq.types import COMPUTE_OPS

__all__ = ["assign_precisions", "block_of", "matching_rules"]

_INT8_REASON = "INT8"
_EPSILON = 1e-9
"""All shares add up to 1 but for rounding."""


def assign_precisions(
    model: ir.Model,
    scheme: Scheme,
    recipe: Recipe,
    *,
    kept_float: Mapping[str, str] | None = None,
    score_layers: Collection[str] = (),
) -> dict[str, OpPlan]:
    """Precision and reason of every op, by node name in graph order.

    Args:
        model: normalised float model.
        scheme: the runtime's.
        recipe: the user's; its rules go before everything but what the runtime cannot do.
        kept_float: nodes that tuning keeps in float, with the reason.
        score_layers: prediction layers that are INT8 all the same: parts of a fused head whose own grid
            has levels enough for scores.

    Raises:
        RecipeError: a rule that matches nothing.
    """
    tail = tail_nodes(model.graph)
    reasons: dict[ir.Node, str | None] = {}
    rules = matching_rules(model, recipe.rules)
    heads = _float_heads(model, scheme, tail) if recipe.float_heads else set()
    heads = {node for node in heads if node_name(node) not in score_layers}
    for node in model.graph:
        name = node_name(node)
        if node in tail:
            reasons[node] = "tail: decodes the outputs"
        elif node.op_type not in scheme.integer_ops:
            reasons[node] = f"{scheme.runtime} has no integer {node.op_type}"
        elif name in rules and rules[name].precision is not None:
            reasons[node] = (
                f"rule {rules[name].match!r}" if rules[name].precision is Precision.FLOAT else None
            )
        elif node.op_type in COMPUTE_OPS and not _constant_weight(node):
            reasons[node] = "product of two activations"
        elif node in heads:
            reasons[node] = "prediction layer: its output decides scores and boxes"
        elif kept_float and name in kept_float:
            reasons[node] = kept_float[name]
        else:
            reasons[node] = None
    _settle_helpers(model, scheme, reasons)
    return {
        node_name(node): OpPlan(
            node_name(node),
            node.op_type,
            Precision.INT8 if why is None else Precision.FLOAT,
            why or _INT8_REASON,
        )
        for node, why in reasons.items()
    }


def _float_heads(model: ir.Model, scheme: Scheme, tail: set[ir.Node]) -> set[ir.Node]:
    """Prediction layers that the scheme keeps in float."""
    if not scheme.float_heads:
        return set()
    found = head_nodes(model.graph, tail)
    rounding = {node for node in found if node.op_type not in scheme.float_output_ops}
    exact = scheme.few_float_head_ops
    few = [node for node in found if exact is None or node.op_type in exact]
    if len(found) > scheme.few_float_heads or not few:
        return rounding
    shares = work_shares(model.graph)
    few.sort(key=lambda node: shares.get(node_name(node), 0.0))
    spent = np.cumsum([shares.get(node_name(node), 0.0) for node in few])
    return rounding.union(
        node for node, sum_ in zip(few, spent, strict=True) if sum_ <= scheme.few_float_head_share + _EPSILON
    )


def matching_rules(model: ir.Model, rules: Iterable[Rule]) -> dict[str, Rule]:
    """Node name -> the merged rule that holds for it; later rules win, field by field.

    Raises:
        RecipeError: a rule that matches nothing, with the nearest names.
    """
    nodes = {node_name(node): node for node in model.graph}
    merged: dict[str, Rule] = {}
    for rule in rules:
        hits = [name for name, node in nodes.items() if _matches(rule, name, node)]
        if not hits:
            known = [*nodes, *(f"op:{op}" for op in {node.op_type for node in nodes.values()})]
            near = difflib.get_close_matches(rule.match.replace("*", ""), known, n=3, cutoff=0.3)
            raise RecipeError(
                f"the recipe's rule {rule.match!r} matches no node",
                fix=f"nearest names: {', '.join(near)}" if near else "`edgeq explain` lists the names",
            )
        for name in hits:
            before = merged.get(name, rule)
            # The pattern is kept for the reason, so it is that of the rule that set the precision.
            match = rule.match if rule.precision is not None else before.match
            merged[name] = Rule(match, rule.precision or before.precision, rule.range or before.range)
    return merged


def block_of(node: ir.Node) -> list[ir.Node]:
    """A convolution with its activation: they change precision together.

    A float convolution with an INT8 activation, or the reverse, costs a rounding and gains no speed.
    """
    return [node, *activation_output(node.outputs[0])[0]]


def _matches(rule: Rule, name: str, node: ir.Node) -> bool:
    # Names like layers[0].conv are common, so brackets stand for themselves.
    pattern = rule.match.replace("[", "[[]")
    if pattern.startswith("op:"):
        return fnmatch.fnmatchcase(node.op_type, pattern[3:])
    return fnmatch.fnmatchcase(name, pattern)


def _constant_weight(node: ir.Node) -> bool:
    return constant_array(node.inputs[1]) is not None


def _settle_helpers(model: ir.Model, scheme: Scheme, reasons: dict[ir.Node, str | None]) -> None:
    """Ops between convolutions are INT8 only where INT8 tensors reach them or are wanted from them.

    An activation goes with its convolution; any other op stays float between float neighbours, since
    rounding there would cost accuracy and save nothing.
    """
    for node in model.graph:
        if node.op_type in COMPUTE_OPS and reasons[node] is not None:
            for follower in activation_output(node.outputs[0])[0]:
                if reasons[follower] is None:
                    reasons[follower] = "activation of a float layer"
    reached = _reached(model, scheme, reasons)
    for node in model.graph:
        if reasons[node] is None and node.op_type not in COMPUTE_OPS and node not in reached:
            reasons[node] = "between float layers"


def _reached(model: ir.Model, scheme: Scheme, reasons: Mapping[ir.Node, str | None]) -> set[ir.Node]:
    """Ops that an INT8 layer feeds, or whose every reader leads to an INT8 layer, through such ops alone.

    With pairs on inputs only an INT8 layer makes a float tensor, so there an op that moves or joins values
    is INT8 where one of its readers leads to an INT8 layer.
    """
    inputs_only = scheme.placement is Placement.COMPUTE_INPUTS
    carriers = scheme.shared_scale_ops | scheme.one_grid_ops if inputs_only else frozenset()
    fed: set[ir.Node] = {
        node for node in model.graph if node.op_type in COMPUTE_OPS and reasons[node] is None
    }
    wanted = set(fed)
    for node in model.graph:
        producers = [value.producer() for value in node.inputs if value is not None]
        if reasons[node] is None and any(producer in fed for producer in producers if producer is not None):
            fed.add(node)
    for node in reversed(model.graph):
        readers = [user for value in node.outputs for user in users(value)]
        enough = any if node.op_type in carriers else all
        if reasons[node] is None and readers and enough(user in wanted for user in readers):
            wanted.add(node)
    return {node for node in fed if node.op_type not in carriers} | wanted
