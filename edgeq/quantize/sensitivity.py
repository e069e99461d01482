"""Which blocks matter: what the outputs gain when one of them computes in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from edgeq.quantize.graph import head_nodes, tail_nodes
from edgeq.quantize.insert import insert_qdq
from edgeq.quantize.local_error import noise_to_signal
from edgeq.quantize.observe import session_with_outputs
from edgeq.quantize.ort import in_parallel
from edgeq.quantize.plan import Plan
from edgeq.types import Float32Array

__all__ = ["Harm", "OutputNoise", "Ranking", "rank_groups"]

_DECISIVE = 0.6
"""A group that takes away so much of the harm comes before all others."""


class Harm(Protocol):
    """What an INT8 model's outputs lack, as a number to be made small."""

    def of(self, qdq: ir.Model) -> float:
        """0: nothing."""
        ...


@dataclass(frozen=True)
class Ranking:
    """Groups, most useful first."""

    order: tuple[int, ...]
    """Their indices; those that do not help are left out."""
    complete: bool
    """False: one group alone takes away most of the harm. What the others are worth shows only once that
    one is in float, so they were not judged."""


class OutputNoise:
    """Noise-to-signal ratio of an INT8 model at the prediction layers' outputs."""

    def __init__(self, model: ir.Model, images: Sequence[Float32Array]) -> None:
        """Run the float model.

        Args:
            model: normalised float model.
            images: pre-processed calibration inputs; a few are enough, since nothing is decided by rank.
        """
        tail = tail_nodes(model.graph)
        self._names = [node.outputs[0].name or "" for node in head_nodes(model.graph, tail)]
        self._images = images
        self._exact = self._outputs(model)

    def of(self, qdq: ir.Model) -> float:
        """Mean over prediction layers of the median over images.

        An image of one plain surface has hardly any signal: its ratio is many times the others' and would
        decide a mean.
        """
        pairs = zip(self._exact, self._outputs(qdq), strict=True)
        ratios = [
            [noise_to_signal(e, r) for e, r in zip(exact, rounded, strict=True)] for exact, rounded in pairs
        ]
        return float(np.mean(np.median(ratios, axis=0))) if self._names else 0.0

    def _outputs(self, model: ir.Model) -> list[list[Float32Array]]:
        session, input_name, names = session_with_outputs(model, self._names, blocked=True)
        return list(in_parallel(lambda image: session.run(names, {input_name: image}), self._images))


def rank_groups(
    model: ir.Model,
    groups: Sequence[Mapping[str, str]],
    costs: Sequence[float],
    make_plan: Callable[[Mapping[str, str]], Plan],
    harm: Harm,
    *,
    base: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> Ranking:
    """Which groups are worth most: harm saved per multiplication kept in float.

    Args:
        model: normalised float model.
        groups: node name -> reason, for each group to try in float.
        costs: each group's share of the multiplications.
        make_plan: the plan with these nodes in float.
        harm: to the outputs.
        base: nodes that are in float in any case; each group holds them too.
        progress: called with (groups done, groups).
    """
    everything = harm.of(insert_qdq(model, make_plan(base)))
    gains: list[float] = []
    for done, group in enumerate(groups, start=1):
        gains.append(everything - harm.of(insert_qdq(model, make_plan(group))))
        if progress is not None:
            progress(done, len(groups))
        if gains[-1] > _DECISIVE * everything:
            return Ranking((len(gains) - 1,), complete=False)
    # One hundredth stands for the roundings that a float island adds whatever its size.
    worth = [gain / (cost + 0.01) for gain, cost in zip(gains, costs, strict=True)]
    order = sorted((i for i, gain in enumerate(gains) if gain > 0), key=lambda index: -worth[index])
    return Ranking(tuple(order), complete=True)
