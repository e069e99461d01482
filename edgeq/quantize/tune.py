"""Which few blocks to keep in float: the noisiest, until the predicted drop meets the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.quantize.graph import head_nodes, is_layer, node_name, tail_nodes
from edgeq.quantize.insert import insert_qdq
from edgeq.quantize.plan import Plan
from edgeq.quantize.precision import block_of
from edgeq.quantize.predict import DropPredictor
from edgeq.quantize.recipe import Precision, Recipe
from edgeq.quantize.sensitivity import Harm, rank_groups
from edgeq.quantize.teacher import LayerError, layer_errors, merge_errors
from edgeq.quantize.unsigned import unsigned_bytes
from edgeq.quantize.work import work_shares
from edgeq.types import Float32Array

__all__ = ["Tuned", "TuningStep", "tune"]

_NOISIEST, _FIRST_LAYERS = 6, 3
"""So many layers are tried in float one by one."""
_DRAFT_IMAGES = 4
"""Errors of the plan without float layers are measured on so many images first, those of the chosen one on
all."""
_STEPS = (1, 2, 3, 5, 8, 12)
"""So many of the ranked groups go to float, until the budget is met."""
_PATIENCE = 3
"""After so many plans that were not worth their float layers no more are tried."""
_SMALL_CHANGE = 0.01
"""With less of the multiplications left than this the search ends."""

MakePlan = Callable[[Mapping[str, str], Mapping[str, Float32Array]], Plan]


@dataclass(frozen=True)
class TuningStep:
    """One plan that was tried."""

    kept_float: tuple[str, ...]
    """Layers kept in float for accuracy."""
    float_share: float
    """Of the multiplications, for these layers."""
    predicted_drop_points: float


@dataclass(frozen=True)
class Tuned:
    """The plan that was chosen, and the way there."""

    plan: Plan
    qdq: ir.Model
    errors: Mapping[str, LayerError]
    """Each layer's own error in the first plan, where nothing is kept in float for accuracy."""
    steps: tuple[TuningStep, ...]
    chosen: TuningStep | None


def tune(
    model: ir.Model,
    recipe: Recipe,
    make_plan: MakePlan,
    images: Sequence[Float32Array],
    predictor: DropPredictor | None,
    *,
    harm: Callable[[], Harm],
    points_per_share: float,
    max_layers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Correct biases, and keep the worst layers in float until the predicted drop is within the recipe's.

    Candidates are the layers with the largest own error, rounding of the input included
    (:func:`layer_errors`), and the first ones, each together with the layer that makes its input, since an
    INT8 producer leaves nothing but a rounded tensor; and those that feed the prediction layers. They are
    ranked by what the outputs gain (:func:`rank_groups`), and the best few are kept in float, as long as
    more of them are worth it.

    Args:
        model: normalised float model.
        recipe: limits, and whether biases are corrected.
        make_plan: plan for layers kept in float and for bias corrections.
        images: pre-processed calibration inputs.
        predictor: None: nothing is predicted and nothing kept in float for accuracy.
        harm: makes what layers are ranked by, where they have to be.
        points_per_share: the scheme's `points_per_float_share`.
        max_layers: so many layers may stay in float for accuracy; None: as the recipe's share allows.
        progress: called with (layers ranked, layers).
    """
    layers = {node_name(node): node for node in model.graph if is_layer(node)}
    attempts = _Attempts(model, recipe, make_plan, images, predictor, points_per_share)
    limit = recipe.max_predicted_drop
    if attempts.add(_Kept({}, (), 0.0), enough=limit) <= (limit or 0.0) or predictor is None or limit is None:
        return attempts.best()
    room = _Room(work_shares(model.graph), recipe.max_float_share, max_layers)
    groups = _candidate_groups(model, layers, make_plan({}, {}), attempts.own_errors)
    ranked: list[_Group] = []
    judge, complete, met = harm(), False, False
    while not (complete or met) and attempts.since_best < _PATIENCE:
        groups = [group for group in groups if group not in ranked and room.has(ranked, group)]
        if not groups:
            break
        base = room.filled(ranked).nodes
        ranking = rank_groups(
            model,
            [{**base, **group.nodes} for group in groups],
            [room.share(group) for group in groups],
            lambda kept: make_plan(kept, {}),
            judge,
            base=base,
            progress=progress,
        )
        tried, complete = len(ranked), ranking.complete
        ranked += [groups[index] for index in ranking.order]
        met = _keep_ever_more(attempts, ranked, tried, room, limit)
    if not met:
        _leave_out_idle(attempts, ranked, room)
    return attempts.best()


def _keep_ever_more(
    attempts: _Attempts, ranked: Sequence[_Group], tried: int, room: _Room, limit: float
) -> bool:
    """Try more and more of the groups in float; whether the predicted drop is within the limit."""
    for count in _STEPS:
        filled = room.filled(ranked[: tried + count])
        if not attempts.knows(filled.layers) and attempts.add(filled) <= limit:
            return True
        if tried + count >= len(ranked) or attempts.since_best >= _PATIENCE:
            break
    return False


def _leave_out_idle(attempts: _Attempts, ranked: Sequence[_Group], room: _Room) -> None:
    """Try the best plan once more without the layers that were not worth their cost when they were added,
    and are in it only because better ones came after them."""
    best, idle = attempts.best_step, attempts.idle_layers()
    rest = [g for g in ranked if set(g.layers) <= set(best.kept_float) and not set(g.layers) & idle]
    filled = room.filled(rest)
    if idle and rest and not attempts.knows(filled.layers):
        attempts.add(filled)


@dataclass(frozen=True)
class _Group:
    """A layer, perhaps the layer that makes its input, and their activations: they go to float together."""

    layers: tuple[str, ...]
    nodes: Mapping[str, str]
    """Node name -> reason."""


@dataclass(frozen=True)
class _Kept:
    """Groups in float, as one."""

    nodes: Mapping[str, str]
    """Node name -> reason."""
    layers: tuple[str, ...]
    share: float
    """Of the multiplications."""


@dataclass(frozen=True)
class _Room:
    """How much may be kept in float."""

    costs: Mapping[str, float]
    """Layer -> its share of the multiplications."""
    max_share: float
    max_layers: int | None

    def share(self, group: _Group) -> float:
        """Of the multiplications, in a group."""
        return sum(self.costs[name] for name in group.layers)

    def filled(self, ranked: Sequence[_Group]) -> _Kept:
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
        return _Kept(nodes, tuple(layers), share)

    def has(self, ranked: Sequence[_Group], group: _Group) -> bool:
        """Whether a group fits in beside those that are ranked already, and looking is worth it."""
        if ranked and self.max_share - self.filled(ranked).share < _SMALL_CHANGE:
            return False
        return set(group.layers) <= set(self.filled([*ranked, group]).layers)


class _Attempts:
    """Plans tried, with what they are predicted to cost."""

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        make_plan: MakePlan,
        images: Sequence[Float32Array],
        predictor: DropPredictor | None,
        points_per_share: float,
    ) -> None:
        self._model, self._recipe, self._make_plan = model, recipe, make_plan
        self._points_per_share = points_per_share
        self._images, self._predictor = images, predictor
        self._tried: list[tuple[TuningStep, Mapping[str, str]]] = []

        first = insert_qdq(model, make_plan({}, {}))
        step = max(1, len(images) // _DRAFT_IMAGES)
        self._others = [image for index, image in enumerate(images) if index % step]
        self.own_errors: Mapping[str, LayerError] = layer_errors(model, first, images[::step])
        """Each layer's own error where nothing is kept in float for accuracy."""

    def knows(self, layers: tuple[str, ...]) -> bool:
        """Whether exactly these layers were tried in float."""
        return any(set(step.kept_float) == set(layers) for step, _ in self._tried)

    @property
    def since_best(self) -> int:
        """How many plans were tried after the one that is worth its float layers most."""
        prices = [self._price(step) for step, _ in self._tried]
        return len(prices) - 1 - prices.index(min(prices))

    @property
    def best_step(self) -> TuningStep:
        """The plan that is worth its float layers most."""
        return min((step for step, _ in self._tried), key=self._price)

    def idle_layers(self) -> set[str]:
        """Layers of the best plan whose addition did not lower the price at the time."""
        best, idle = self._tried[0][0], set[str]()
        for step, _ in self._tried[1:]:
            if self._price(step) < self._price(best):
                best = step
            elif best is not self.best_step:
                idle |= set(step.kept_float) - set(best.kept_float)
        return idle & set(best.kept_float)

    def add(self, kept: _Kept, *, enough: float | None = None) -> float:
        """Try these layers in float; the predicted drop in points (0 without a predictor).

        Args:
            kept: the layers.
            enough: as :meth:`DropPredictor.predict` takes it.
        """
        drop = 0.0
        if self._predictor is not None:
            _, qdq = self._with_shifts(kept.nodes, self.own_errors)
            drop = self._predictor.predict(unsigned_bytes(qdq), enough=enough)
        self._tried.append((TuningStep(kept.layers, kept.share, drop), kept.nodes))
        return drop

    def best(self) -> Tuned:
        """The first plan within the budget, else the one whose float layers are worth their cost most."""
        steps = tuple(step for step, _ in self._tried)
        limit = self._recipe.max_predicted_drop or 0.0
        within = [entry for entry in self._tried if entry[0].predicted_drop_points <= limit]
        chosen, kept = within[0] if within else min(self._tried, key=lambda entry: self._price(entry[0]))
        plan, qdq = self._corrected(kept)
        if self._predictor is None:
            return Tuned(plan, qdq, self.own_errors, (), None)
        return Tuned(plan, qdq, self.own_errors, steps, chosen)

    def _price(self, step: TuningStep) -> float:
        return step.predicted_drop_points + self._points_per_share * step.float_share

    def _corrected(self, kept: Mapping[str, str]) -> tuple[Plan, ir.Model]:
        """Plan and QDQ model with every INT8 layer's own mean error in this very plan taken out of its bias.

        Layers behind float ones get exact inputs, so the errors are not those of the first plan.
        """
        if not self._recipe.bias_correction:
            return self._with_shifts(kept, {})
        qdq = insert_qdq(self._model, self._make_plan(kept, {}))
        if kept:
            return self._with_shifts(kept, layer_errors(self._model, qdq, self._images))
        others = layer_errors(self._model, qdq, self._others)
        return self._with_shifts(kept, merge_errors(self.own_errors, others))

    def _with_shifts(
        self, kept: Mapping[str, str], errors: Mapping[str, LayerError]
    ) -> tuple[Plan, ir.Model]:
        """Plan and QDQ model with these mean errors taken out of the biases."""
        corrected = errors if self._recipe.bias_correction else {}
        plan = self._make_plan(kept, {name: -error.mean_error for name, error in corrected.items()})
        return plan, insert_qdq(self._model, plan)


def _candidate_groups(
    model: ir.Model, layers: Mapping[str, ir.Node], plan: Plan, errors: Mapping[str, LayerError]
) -> list[_Group]:
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
    groups: dict[frozenset[str], _Group] = {}
    for members in filter(None, wholes):
        reason = f"kept in float for accuracy: noise {errors[members[0]].noise:.2g} in {members[0]}"
        nodes = {node_name(node): reason for member in members for node in block_of(layers[member])}
        groups.setdefault(frozenset(members), _Group(members, nodes))
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
