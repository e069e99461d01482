"""Which few blocks to keep in float: the noisiest, until the predicted drop meets the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.quantize.graph import COMPUTE_OPS, constant_array, node_name
from edgeq.quantize.insert import insert_qdq, model_bytes
from edgeq.quantize.plan import Plan
from edgeq.quantize.precision import block_of
from edgeq.quantize.predict import DropPredictor
from edgeq.quantize.recipe import Precision, Recipe
from edgeq.quantize.teacher import LayerError, layer_errors
from edgeq.types import Float32Array

__all__ = ["Tuned", "TuningStep", "tune"]

_FIRST_STEP = 1
_MOST_STEPS = 7
_WORTH = 0.02
"""A step must lower the predicted drop by so many points to be better than a smaller one."""

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
    progress: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Correct biases, and keep the worst layers in float until the predicted drop is within the recipe's.

    A layer is judged by its own error with exact inputs (:func:`layer_errors`), rounding of its input
    included; so it goes to float together with the layers that make that input, since an INT8
    producer leaves nothing but a rounded tensor.

    Args:
        model: normalised float model.
        recipe: limits, and whether biases are corrected.
        make_plan: plan for layers kept in float and for bias corrections.
        images: pre-processed calibration inputs.
        predictor: None: nothing is predicted and nothing kept in float for accuracy.
        progress: called with (steps done, most steps).
    """
    layers = {node_name(node): node for node in model.graph if _is_layer(node)}
    costs = _multiplications(layers)
    plan = make_plan({}, {})
    errors = layer_errors(model, insert_qdq(model, plan), images)
    candidates = sorted(
        (name for name in layers if plan.ops[name].precision is Precision.INT8),
        key=lambda name: errors[name].noise,
        reverse=True,
    )
    tried: list[tuple[TuningStep, Plan, ir.Model]] = []
    kept: dict[str, str] = {}
    count = 0
    for step in range(_MOST_STEPS + 1):
        corrected, qdq = _corrected(model, recipe, make_plan, kept, errors, images)
        if predictor is None:
            return Tuned(corrected, qdq, errors, (), None)
        share = sum(costs[name] for name in kept if name in costs)
        drop = predictor.predict(model_bytes(qdq))
        tried.append((TuningStep(tuple(n for n in kept if n in layers), share, drop), corrected, qdq))
        if progress is not None:
            progress(step + 1, _MOST_STEPS + 1)
        if recipe.max_predicted_drop is None or drop <= recipe.max_predicted_drop or step == _MOST_STEPS:
            break
        count = _FIRST_STEP if count == 0 else count * 2 if count < 4 else count + 3
        grown = _kept_float(candidates[:count], layers, errors, costs, recipe.max_float_share)
        if grown.keys() == kept.keys():
            break
        kept = grown
    best = _best([step for step, _, _ in tried], recipe.max_predicted_drop)
    chosen, plan, qdq = tried[best]
    return Tuned(plan, qdq, errors, tuple(step for step, _, _ in tried), chosen)


def _best(steps: Sequence[TuningStep], budget: float | None) -> int:
    """The first step within the budget, else the first that is about as good as any."""
    drops = [step.predicted_drop_points for step in steps]
    for index, drop in enumerate(drops):
        if budget is None or drop <= budget:
            return index
    return next(index for index, drop in enumerate(drops) if drop <= min(drops) + _WORTH)


def _corrected(
    model: ir.Model,
    recipe: Recipe,
    make_plan: MakePlan,
    kept: Mapping[str, str],
    errors: Mapping[str, LayerError],
    images: Sequence[Float32Array],
) -> tuple[Plan, ir.Model]:
    """Plan and QDQ model with every INT8 layer's own mean error taken out of its bias."""
    if not recipe.bias_correction:
        plan = make_plan(kept, {})
        return plan, insert_qdq(model, plan)
    if kept:
        # Other inputs are rounded now, so the layers behind them have other mean errors.
        errors = layer_errors(model, insert_qdq(model, make_plan(kept, {})), images)
    plan = make_plan(kept, {name: -error.mean_error for name, error in errors.items()})
    return plan, insert_qdq(model, plan)


def _kept_float(
    names: Sequence[str],
    layers: Mapping[str, ir.Node],
    errors: Mapping[str, LayerError],
    costs: Mapping[str, float],
    max_share: float,
) -> dict[str, str]:
    """Node name -> reason for the blocks of these layers and of their producers, within the share."""
    kept: dict[str, str] = {}
    share = 0.0
    for name in names:
        group = [name, *(node_name(node) for node in _producing_layers(layers[name]))]
        added = sum(costs[layer] for layer in group if layer not in kept)
        if share + added > max_share:
            continue
        share += added
        for layer in group:
            for node in block_of(layers[layer]):
                why = f"noise {errors[name].noise:.2g} in {name}" if layer != name else f"noise {errors[name].noise:.2g}"
                kept.setdefault(node_name(node), f"kept in float for accuracy: {why}")
    return kept


def _producing_layers(node: ir.Node) -> list[ir.Node]:
    """The layers whose activations alone make a layer's input; none where other ops come between."""
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    while producer is not None and not _is_layer(producer):
        inputs = [entry for entry in producer.inputs if entry is not None and entry.const_value is None]
        sources = {entry.producer() for entry in inputs}
        # Through the activation only: Sigmoid, Mul of a SiLU, Relu, Clip, ...
        if producer.op_type in ("Concat", "Add", "Resize", "MaxPool", "Split", "Slice"):
            return []
        producer = next((p for p in sources if p is not None and _is_layer(p)), next(iter(sources), None))
    return [] if producer is None else [producer]


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in COMPUTE_OPS and constant_array(node.inputs[1]) is not None


def _multiplications(layers: Mapping[str, ir.Node]) -> dict[str, float]:
    """Share of the model's multiplications in each layer."""
    counts: dict[str, float] = {}
    for name, node in layers.items():
        weight = constant_array(node.inputs[1])
        shape = node.outputs[0].shape
        positions = 1
        if shape is not None and len(shape) > 2:
            positions = int(np.prod([dim if isinstance(dim, int) else 1 for dim in list(shape)[2:]]))
        counts[name] = float((0 if weight is None else weight.size) * positions)
    total = sum(counts.values()) or 1.0
    return {name: count / total for name, count in counts.items()}
