"""Which few blocks to keep in float: the noisiest, until the predicted drop meets the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgeq.quantize.attempts import Attempts, MakePlan, Tuned
from edgeq.quantize.candidates import Group, Kept, Room, candidate_groups
from edgeq.quantize.graph import is_layer, node_name
from edgeq.quantize.predict import DropPredictor
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.sensitivity import Harm, rank_groups
from edgeq.quantize.work import work_shares
from edgeq.types import Float32Array

__all__ = ["tune"]

_STEPS = (1, 2, 3, 5, 8, 12)
"""So many of the ranked groups go to float, until the budget is met."""
_PATIENCE = 3
"""After so many plans that were not worth their float layers no more are tried."""


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
    attempts = Attempts(model, recipe, make_plan, images, predictor, points_per_share)
    limit = recipe.max_predicted_drop
    if attempts.add(Kept({}, (), 0.0), enough=limit) <= (limit or 0.0) or predictor is None or limit is None:
        return attempts.best()
    room = Room(work_shares(model.graph), recipe.max_float_share, max_layers)
    groups = candidate_groups(model, layers, make_plan({}, {}), attempts.own_errors)
    ranked: list[Group] = []
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
    attempts: Attempts, ranked: Sequence[Group], tried: int, room: Room, limit: float
) -> bool:
    """Try more and more of the groups in float; whether the predicted drop is within the limit."""
    for count in _STEPS:
        filled = room.filled(ranked[: tried + count])
        if not attempts.knows(filled.layers) and attempts.add(filled) <= limit:
            return True
        if tried + count >= len(ranked) or attempts.since_best >= _PATIENCE:
            break
    return False


def _leave_out_idle(attempts: Attempts, ranked: Sequence[Group], room: Room) -> None:
    """Try the best plan once more without the layers that were not worth their cost when they were added,
    and are in it only because better ones came after them."""
    best, idle = attempts.best_step, attempts.idle_layers()
    rest = [g for g in ranked if set(g.layers) <= set(best.kept_float) and not set(g.layers) & idle]
    filled = room.filled(rest)
    if idle and rest and not attempts.knows(filled.layers):
        attempts.add(filled)
