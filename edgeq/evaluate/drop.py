"""The drop: what INT8 cost, how sure that is, and what it means for a budget."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

__all__ = ["BudgetVerdict", "Drop", "Verdict"]

_SIGMAS_95 = 1.96
"""Half width of a 95 % interval in standard errors, for a normal distribution."""


class Verdict(str, Enum):
    """What a drop means for a budget."""

    PASS = "pass"
    """Within the budget, and the whole interval with it."""
    FAIL = "fail"
    """Over the budget, and the whole interval with it."""
    NOT_RESOLVABLE = "not-resolvable"
    """The interval holds the budget: so many images cannot decide."""


@dataclass(frozen=True)
class BudgetVerdict:
    """A drop held against a budget."""

    budget_points: float
    within: bool
    """The measured drop is at most the budget: what the gate acts on."""
    resolvable: bool
    """The interval does not hold the budget: what the gate says about its own answer."""
    images_needed: int | None
    """About so many images would resolve it, if the drop stayed the same; None: any number, or none would."""

    @property
    def verdict(self) -> Verdict:
        """One word for both."""
        if not self.resolvable:
            return Verdict.NOT_RESOLVABLE
        return Verdict.PASS if self.within else Verdict.FAIL

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "verdict": self.verdict.value}


@dataclass(frozen=True)
class Drop:
    """Float metric minus INT8 metric on the same images, in points; below 0, INT8 is better."""

    metric: str
    """``map50_95`` or ``top1``."""
    drop_points: float
    drop_interval_points: tuple[float, float]
    """95 % of the paired bootstrap's replicates lie in it."""
    standard_error_points: float
    image_count: int
    replicates: int
    seed: int

    def against(self, budget_points: float) -> BudgetVerdict:
        """The verdict for a budget.

        The interval decides whether the images can tell (*resolvable*), the point estimate on which side of
        the budget the drop lies (*within*). The standard error shrinks with the root of the number of
        images, so n (1.96 SE / distance)^2 images would be needed for the interval to end at the budget.
        """
        low, high = self.drop_interval_points
        certain = low == high
        distance = abs(self.drop_points - budget_points)
        resolvable = certain or not low <= budget_points <= high
        needed = None
        if not resolvable and distance > 0:
            ratio = _SIGMAS_95 * self.standard_error_points / distance
            needed = max(self.image_count + 1, math.ceil(self.image_count * ratio**2))
        return BudgetVerdict(
            budget_points=budget_points,
            within=self.drop_points <= budget_points,
            resolvable=resolvable,
            images_needed=needed,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, names with the vocabulary's spelling."""
        return {**asdict(self), "drop_interval_points": list(self.drop_interval_points)}
