"""What could be kept in float for accuracy, and for how much of it there is room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.quantize.graph import head_nodes, is_layer, node_name, tail_nodes
from edgeq.quantize.plan import Plan
from edgeq.quantize.precision import block_of
from edgeq.quantize.recipe import Precision
from edgeq.quantize.teacher import LayerError

__all__ = ["Group", "Kept", "Room", "candidate_groups"]

_NOISIEST, _FIRST_LAYERS = 6, 3
"""So many layers are tried in float one by one."""
_SMALL_CHANGE = 0.01
"""With less of the multiplications left than this the search ends."""


@dataclass(frozen=True)
class Group:
    """A layer, perhaps the layer that makes its input, and their activations: they go to float together."""

    layers: tuple[str, ...]
    nodes: Mapping[str, str]
    """Node name -> reason."""


@dataclass(frozen=True)
class Kept:
    """Groups in float, as one."""

    nodes: Mapping[str, str]
    """Node name -> reason."""
    layers: tuple[str, ...]
    share: float
    """Of the multiplications."""


@dataclass(frozen=True)
class Room:
    """How much may be kept in float."""

    costs: Mapping[str, float]
    """Layer -> its share of the multiplications."""
    max_share: float
    max_layers: int | None

    def share(self, group: Group) -> float:
        """Of the multiplications, in a group."""
        return sum(self.costs[name] for name in group.layers)

    def filled(self, ranked: Sequence[Group]) -> Kept:
        """The groups, best first, as far as there is room."""
        nodes: dict[str, str] = {}
        layers: dict[str, None] = {}
        share = 0.0
        for group in ranked:
            new = [name for name in group.layers if name not in layers]
            added = sum(self.costs[name] for name in new)
            too_many = self.max_layers is not None and len(layers) + len(new) > self.max_layers
            if share + added > self.max_share or too_many:
                continue
            share += added
            layers.update(dict.fromkeys(group.layers))
            nodes = {**group.nodes, **nodes}
        return Kept(nodes, tuple(layers), share)

    def has(self, ranked: Sequence[Group], group: Group) -> bool:
        """Whether a group fits in beside those that are ranked already, and looking is worth it."""
        if ranked and self.max_share - self.filled(ranked).share < _SMALL_CHANGE:
            return False
        return set(group.layers) <= set(self.filled([*ranked, group]).layers)


def candidate_groups(
    model: ir.Model, layers: Mapping[str, ir.Node], plan: Plan, errors: Mapping[str, LayerError]
) -> list[Group]:
    """The noisiest layers, the first ones, whose noise runs through everything behind them, and those that
    feed the prediction layers, whose noise nothing averages out any more."""
    int8 = [name for name in layers if plan.ops[name].precision is Precision.INT8]
    noisiest = sorted(int8, key=lambda name: errors[name].noise, reverse=True)[:_NOISIEST]
    wholes = [
        (name, *(node_name(node) for node in _producing_layers(layers[name])))
        for name in dict.fromkeys([*noisiest, *int8[:_FIRST_LAYERS]])
    ]
    heads = [node for node in head_nodes(model.graph, tail_nodes(model.graph)) if node_name(node) not in int8]
    feeders = [node_name(node) for head in heads for node in _producing_layers(head)]
    # Together: what one of several heads gains is too little to be told from chance on a few images.
    wholes.append(tuple(dict.fromkeys(name for name in feeders if name in int8)))
    groups: dict[frozenset[str], Group] = {}
    for members in filter(None, wholes):
        reason = f"kept in float for accuracy: noise {errors[members[0]].noise:.2g} in {members[0]}"
        nodes = {node_name(node): reason for member in members for node in block_of(layers[member])}
        groups.setdefault(frozenset(members), Group(members, nodes))
    return list(groups.values())


def _producing_layers(node: ir.Node) -> list[ir.Node]:
    """The layers whose activations alone make a layer's input; none where other ops come between."""
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    while producer is not None and not is_layer(producer):
        inputs = [entry for entry in producer.inputs if entry is not None and entry.const_value is None]
        sources = {entry.producer() for entry in inputs}
        # Through the activation only: Sigmoid, Mul of a SiLU, Relu, Clip, ...
        if producer.op_type in ("Concat", "Add", "Resize", "MaxPool", "Split", "Slice"):
            return []
        producer = next((p for p in sources if p is not None and is_layer(p)), next(iter(sources), None))
    return [] if producer is None else [producer]
