"""Recipes: what Python can say, TOML can; what is not known is refused by name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from edgeq.errors import RecipeError
from edgeq.quantize.recipe import (
    Granularity,
    Precision,
    RangeMethod,
    Recipe,
    Rule,
    load_recipe,
    parse_recipe,
)

RECIPES = {
    "default": Recipe(),
    "all-changed": Recipe(
        range=RangeMethod.ENTROPY,
        symmetric=True,
        granularity=Granularity.PER_TENSOR,
        weight_range=RangeMethod.MSE,
        weight_bits=7,
        depthwise_equalization=True,
        bias_correction=False,
        weight_compensation=False,
        float_heads=False,
        max_predicted_drop=None,
        max_float_share=0.4,
        rules=(
            Rule("/model.22/*", Precision.FLOAT),
            Rule("op:Resize", Precision.INT8, RangeMethod.MINMAX),
            Rule('a "quoted" \\ name', range=RangeMethod.PERCENTILE),
        ),
    ),
    "asymmetric": Recipe(symmetric=False, max_predicted_drop=1.25, depthwise_equalization=False),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_file(name):
    assert parse_recipe(RECIPES[name].to_toml()) == RECIPES[name]


def test_every_field_is_changed_in_the_recipe_above():
    default, changed = RECIPES["default"], RECIPES["all-changed"]
    same = {f.name for f in fields(Recipe) if getattr(default, f.name) == getattr(changed, f.name)}
    assert same == set()


def test_an_empty_recipe_is_the_default():
    assert parse_recipe("schema = 1") == Recipe()


@pytest.mark.parametrize(
    "text",
    [
        "max_predicted_drop = 0",
        "max_predicted_drop = 0.0",
    ],
)
def test_a_budget_of_zero_is_the_strictest_and_not_none(text):
    assert parse_recipe(f"schema = 1\n[tune]\n{text}").max_predicted_drop == 0.0


def test_a_budget_of_zero_survives_its_file():
    recipe = Recipe(max_predicted_drop=0.0)
    assert parse_recipe(recipe.to_toml()).max_predicted_drop == 0.0


def test_no_budget_is_written_as_false():
    assert parse_recipe("schema = 1\n[tune]\nmax_predicted_drop = false").max_predicted_drop is None


def test_a_rule_with_a_control_character_survives_its_file():
    recipe = Recipe(rules=(Rule("a\nb\tc", Precision.FLOAT),))
    assert parse_recipe(recipe.to_toml()) == recipe


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("schema = 1\ncolour = 3", "colour"),
        ("schema = 1\n[activations]\nmethod = 'mse'", "activations.method"),
        ("schema = 1\n[weights]\naxis = 0", "weights.axis"),
        ("schema = 1\n[[rules]]\nmatch = 'a'\nprecison = 'float'", "rules.0.precison"),
        ("schema = 1\n[activations]\nrange = 'max'", "activations.range"),
        ("schema = 1\n[weights]\nrange = 'entropy'", "weights.range"),
        ("schema = 1\n[[rules]]\nprecision = 'float'", "rules.0.match"),
        ("schema = 1\n[[rules]]\nmatch = ''", "rules.0.match"),
        ("schema = 1\n[[rules]]\nmatch = 'a'\nprecision = 'int4'", "rules.0.precision"),
        ("schema = 1\n[tune]\nmax_predicted_drop = -1", "tune.max_predicted_drop"),
        ("schema = 1\n[tune]\nmax_predicted_drop = nan", "tune.max_predicted_drop"),
        ("schema = 1\n[tune]\nmax_float_share = 1.5", "tune.max_float_share"),
        ("schema = 2", "schema"),
        ("[tail]\nfloat_heads = true", "schema"),
    ],
)
def test_what_is_not_known_is_refused_by_name(text, named):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, origin="my.toml")
    assert named in str(caught.value)
    assert "my.toml" in str(caught.value)


def test_a_budget_of_true_is_refused():
    with pytest.raises(RecipeError, match="max_predicted_drop"):
        parse_recipe("schema = 1\n[tune]\nmax_predicted_drop = true")


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere\.toml"):
        load_recipe(tmp_path / "nowhere.toml")
    for name, data in (("broken.toml", b"schema = "), ("binary.toml", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RecipeError, match=name):
            load_recipe(tmp_path / name)


def test_rules_are_added_behind():
    first, second = Rule("a", Precision.FLOAT), Rule("b", Precision.INT8)
    recipe = Recipe(rules=(first,))
    assert recipe.with_rules(second).rules == (first, second)
    assert recipe.rules == (first,)
