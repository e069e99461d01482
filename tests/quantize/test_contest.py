"""The standing range against its challengers."""

from __future__ import annotations

import pytest

from edgeq.quantize.contest import least_noise
from edgeq.quantize.grid import Range, affine
from edgeq.quantize.plan import TensorPlan
from edgeq.types import IntegerType

from .nets import images, normalised, silu_net

BRIGHT = [picture / picture.max() for picture in images(4, seed=5)]
DIM = [picture * 0.1 for picture in BRIGHT]


def plan(method, high):
    return TensorPlan("images", affine(Range(0.0, high), IntegerType.UINT8, symmetric=False), method)


@pytest.fixture(scope="module")
def winner():
    model = normalised(silu_net())
    value = model.graph.inputs[0]

    def of(plans, pictures):
        return least_noise(model, "uint8", [(value, plans)], set(), pictures)["images"].method

    return of


def test_a_range_that_is_clearly_better_everywhere_wins(winner):
    assert winner([plan("standing", 8.0), plan("better", 1.0)], BRIGHT) == "better"


def test_a_range_that_is_a_little_better_does_not(winner):
    assert winner([plan("standing", 1.08), plan("better", 1.0)], BRIGHT) == "standing"


def test_a_range_that_is_better_on_the_first_image_only_does_not(winner):
    plans = [plan("standing", 1.0), plan("lucky", 0.1)]
    assert winner(plans, DIM) == "lucky"
    assert winner(plans, [DIM[0], *BRIGHT[1:]]) == "standing"


def test_one_candidate_needs_no_contest(winner):
    assert winner([plan("alone", 1.0)], BRIGHT) == "alone"
