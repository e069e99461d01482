"""The recipe as ``quantize`` takes it: a file, or flags over the default one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.values import choice

if TYPE_CHECKING:
    from edgeq.quantize.recipe import Recipe
    from edgeq.quantize.scheme import Scheme

__all__ = ["RecipeFlags"]

_PREDICTED_SHARE = 0.4
"""Of the budget, for the predicted drop: predictions were too low by up to a point."""


@dataclass(frozen=True)
class RecipeFlags:
    """Choices over those of the recipe file, or of the default recipe."""

    recipe_file: Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="Recipe in TOML.")] = (
        None
    )
    range_method: Annotated[
        Any | None,
        typer.Option(
            "--range", parser=choice("edgeq.quantize.recipe:RangeMethod"),
            metavar="minmax|moving-average|percentile|mse|entropy|auto",
            help="How ranges are chosen.", show_default=False,
        ),
    ] = None  # fmt: skip
    symmetric: Annotated[
        bool | None,
        typer.Option("--symmetric/--asymmetric", help="Zero point of activations."),
    ] = None
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One scale per weight, not per channel.")
    ] = False
    bias_correction: Annotated[
        bool | None,
        typer.Option("--bias-correction/--no-bias-correction", help="Correct biases."),
    ] = None
    equalize: Annotated[
        bool | None,
        typer.Option("--equalize/--no-equalize", help="Equalise depthwise inputs."),
    ] = None

    def recipe_for(self, drop_points: float | None, scheme: Scheme, *, all_integer: bool) -> Recipe:
        """The recipe, its tuning aimed at a budget; a recipe file says itself what to aim at.

        Args:
            drop_points: the budget's limit; None: there is none, so the scheme says what to aim at.
            scheme: the runtime's.
            all_integer: for a device that computes in integers only: it cannot keep a layer in float,
                whatever that costs; channels that differ too much for one grid are equalised instead.

        Raises:
            RecipeError: the file is wrong.
        """
        recipe = self._recipe()
        if self.recipe_file is not None:
            return recipe
        if all_integer:
            equalize = True if recipe.depthwise_equalization is None else recipe.depthwise_equalization
            return replace(
                recipe, float_heads=False, max_predicted_drop=None, depthwise_equalization=equalize
            )
        if drop_points is None:
            return replace(recipe, max_predicted_drop=scheme.default_predicted_drop)
        return replace(recipe, max_predicted_drop=_PREDICTED_SHARE * drop_points)

    def _recipe(self) -> Recipe:
        from edgeq.quantize.recipe import Granularity, Recipe, load_recipe

        made = Recipe() if self.recipe_file is None else load_recipe(self.recipe_file)
        given: dict[str, Any] = {
            "range": self.range_method,
            "symmetric": self.symmetric,
            "granularity": Granularity.PER_TENSOR if self.per_tensor else None,
            "bias_correction": self.bias_correction,
            "depthwise_equalization": self.equalize,
        }
        return replace(made, **{name: value for name, value in given.items() if value is not None})
