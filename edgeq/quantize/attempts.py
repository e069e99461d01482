"""Plans that tuning tries, with what each is predicted to cost, and the one that is worth most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.quantize.candidates import Kept
from edgeq.quantize.insert import insert_qdq
from edgeq.quantize.plan import Plan
from edgeq.quantize.predict import DropPredictor
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.teacher import LayerError, layer_errors, merge_errors
from edgeq.quantize.unsigned import unsigned_bytes
from edgeq.types import Float32Array

__all__ = ["Attempts", "MakePlan", "Tuned", "TuningStep"]

_DRAFT_IMAGES = 4
"""Errors of the plan without float layers are measured on so many images first, those of the chosen one on
all."""

MakePlan = Callable[[Mapping[str, str], Mapping[str, Float32Array]], Plan]
"""Plan for layers kept in float, with the reason of each, and for corrections of biases."""


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


class Attempts:
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

    def add(self, kept: Kept, *, enough: float | None = None) -> float:
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
