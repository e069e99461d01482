"""The recipe: the user's and the tuner's choices as data, in a TOML file.

::

    schema = 1

    [activations]
    range = "auto"                 # minmax, moving-average, percentile, mse, entropy or auto

    [weights]
    granularity = "per-channel"    # or per-tensor
    range = "minmax"               # or mse
    bits = 8                       # or 7; left out: as the target needs

    [passes]
    depthwise_equalization = false # left out: as the target needs
    bias_correction = true
    weight_compensation = true     # prediction layers in INT8: rounding errors cancel where objects are

    [tail]
    float_heads = true             # prediction convolutions in float; the decode behind them always is

    [tune]
    max_predicted_drop = 0.2       # points; worst blocks go to float until this is met
    max_float_share = 0.15         # of the multiplications

    [[rules]]                      # in order; a later one wins
    match = "/model.22/*"          # node name, or "op:Resize"; * and ? as in a shell
    precision = "float"

    [[rules]]
    match = "/model.0/conv/Conv"
    range = "minmax"               # for the tensors that the node makes
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgeq.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Granularity", "Precision", "RangeMethod", "Recipe", "Rule", "load_recipe", "parse_recipe"]

SCHEMA = 1


class RangeMethod(str, Enum):
    """How a tensor's range is chosen from its statistics."""

    MINMAX = "minmax"
    MOVING_AVERAGE = "moving-average"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"
    AUTO = "auto"
    """Per tensor the one with the least error measured at the layers that read it."""


class Granularity(str, Enum):
    """How many scales a weight has."""

    PER_CHANNEL = "per-channel"
    PER_TENSOR = "per-tensor"


class Precision(str, Enum):
    """What an op computes in."""

    INT8 = "int8"
    FLOAT = "float"


@dataclass(frozen=True)
class Rule:
    """One override: nodes by name or ``op:TYPE``, and what holds for them."""

    match: str
    precision: Precision | None = None
    range: RangeMethod | None = None


@dataclass(frozen=True)
class Recipe:
    """All choices; the defaults are what edgeq recommends."""

    range: RangeMethod = RangeMethod.AUTO
    symmetric: bool | None = None
    """None: as the runtime's scheme says."""
    granularity: Granularity = Granularity.PER_CHANNEL
    weight_range: RangeMethod = RangeMethod.MINMAX
    weight_bits: int | None = None
    """8 or 7; None: as the runtime's scheme says."""
    depthwise_equalization: bool | None = None
    """None: as the runtime's scheme says."""
    bias_correction: bool = True
    weight_compensation: bool = True
    float_heads: bool = True
    """Prediction layers stay float; not those that the runtime's scheme has in INT8 all the same, such as the
    scores of a fused head, which a rule can keep in float."""
    max_predicted_drop: float | None = 0.2
    """Points; None: no block is kept in float for accuracy's sake."""
    max_float_share: float = 0.15
    rules: tuple[Rule, ...] = ()

    def to_toml(self) -> str:
        """The recipe as a file; :func:`parse_recipe` reads it back."""
        lines = [f"schema = {SCHEMA}", "", "[activations]", f'range = "{self.range.value}"']
        if self.symmetric is not None:
            lines.append(f"symmetric = {_boolean(self.symmetric)}")
        lines += ["", "[weights]", f'granularity = "{self.granularity.value}"']
        lines.append(f'range = "{self.weight_range.value}"')
        lines += [] if self.weight_bits is None else [f"bits = {self.weight_bits}"]
        lines += ["", "[passes]"]
        if self.depthwise_equalization is not None:
            lines.append(f"depthwise_equalization = {_boolean(self.depthwise_equalization)}")
        lines.append(f"bias_correction = {_boolean(self.bias_correction)}")
        lines += [f"weight_compensation = {_boolean(self.weight_compensation)}", "", "[tail]"]
        lines += [f"float_heads = {_boolean(self.float_heads)}", "", "[tune]"]
        drop = "false" if self.max_predicted_drop is None else repr(float(self.max_predicted_drop))
        lines += [f"max_predicted_drop = {drop}", f"max_float_share = {self.max_float_share!r}"]
        for rule in self.rules:
            lines += ["", "[[rules]]", f"match = {_string(rule.match)}"]
            lines += [f'precision = "{rule.precision.value}"'] if rule.precision else []
            lines += [f'range = "{rule.range.value}"'] if rule.range else []
        return "\n".join(lines) + "\n"

    def with_rules(self, *rules: Rule) -> Recipe:
        """The same with more rules behind the existing ones."""
        return replace(self, rules=self.rules + rules)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class _Activations(_Section):
    range: RangeMethod = RangeMethod.AUTO
    symmetric: bool | None = None


class _Weights(_Section):
    granularity: Granularity = Granularity.PER_CHANNEL
    range: Literal[RangeMethod.MINMAX, RangeMethod.MSE] = RangeMethod.MINMAX
    bits: Literal[7, 8] | None = None


class _Passes(_Section):
    depthwise_equalization: bool | None = None
    bias_correction: bool = True
    weight_compensation: bool = True


class _Tail(_Section):
    float_heads: bool = True


class _Tune(_Section):
    max_predicted_drop: float | None = Field(default=0.2, ge=0, allow_inf_nan=False)
    max_float_share: float = Field(default=0.15, ge=0, le=1)

    @field_validator("max_predicted_drop", mode="before")
    @classmethod
    def _false_means_none(cls, value: object) -> object:
        if isinstance(value, bool):
            if value:
                raise ValueError("give a number of points, or false for no budget")
            return None
        return value


class _Rule(_Section):
    match: str = Field(min_length=1)
    precision: Precision | None = None
    range: RangeMethod | None = None


class _RecipeFile(_Section):
    schema_: Literal[1] = Field(alias="schema")
    activations: _Activations = _Activations()
    weights: _Weights = _Weights()
    passes: _Passes = _Passes()
    tail: _Tail = _Tail()
    tune: _Tune = _Tune()
    rules: list[_Rule] = []


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: not readable, not TOML, or keys and values that are not known.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe {path} cannot be read: {error}", fix="check the path") from error
    return parse_recipe(text, origin=str(path))


def parse_recipe(text: str, *, origin: str = "recipe") -> Recipe:
    """Recipe from TOML text; raises :class:`RecipeError` as :func:`load_recipe` does."""
    try:
        file = _RecipeFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin} is not TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors())
        raise RecipeError(f"{origin}: {problems}", fix="`edgeq quantize --help` names the keys") from error
    return Recipe(
        range=file.activations.range,
        symmetric=file.activations.symmetric,
        granularity=file.weights.granularity,
        weight_range=file.weights.range,
        weight_bits=file.weights.bits,
        depthwise_equalization=file.passes.depthwise_equalization,
        bias_correction=file.passes.bias_correction,
        weight_compensation=file.passes.weight_compensation,
        float_heads=file.tail.float_heads,
        max_predicted_drop=file.tune.max_predicted_drop,
        max_float_share=file.tune.max_float_share,
        rules=tuple(Rule(rule.match, rule.precision, rule.range) for rule in file.rules),
    )


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"unknown key {where}" if error["type"] == "extra_forbidden" else f"{where}: {error['msg']}"


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _string(text: str) -> str:
    # JSON's escapes are TOML's too, but for DEL, which JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
