"""Weights of the prediction layers rounded so that their errors cancel where objects are.

Rounding each weight to the nearest level is best when inputs are independent. Those of a prediction layer
are not, and nothing behind it averages its errors out: they are errors of scores and boxes. So the columns
of a 1x1 convolution's weight are rounded one after the other, and each one's error is spread over the
columns still to come as the inputs' covariance H says (Frantar et al. 2022, GPTQ, arXiv:2210.17323; Hassibi
and Stork 1993, optimal brain surgeon):

    w[j] -= (w[i] - round(w[i])) / U[i, i] * U[i, j]   for j > i,   with H^-1 = U^T U, U upper triangular

What then is left of the error on the mean input m goes into the bias, -(rounded - w) m.

Mean and covariance are weighted: a position of the image counts as much as the float model's best score
there, since objects are rare and the unweighted ones are the background's. With that the drift of likely
objects' boxes and scores (`OutputDrift`) that these layers' weights alone cause in YOLOv5n at 416 pixels, on
images that took no part, fell from 0.030 to 0.022 (unweighted 0.023; damped by 0.01 instead of 0.1: 0.022 and
0.024). Everything in INT8 it fell from 0.115 to 0.108, where float weights gave 0.104. The mean error over
all positions of such a layer in INT8, input included, must not be taken out of its bias: with that the drift
was larger than without (0.115 and 0.113; YOLOX-Nano 0.107 and 0.106).

Tried and left out: to fit weights and biases to the float model's outputs by weighted ridge regression from
the INT8 model's inputs, so that they would take back what the layers before have rounded. The weaker the
ridge, the larger the drift: 0.138 at 0.01 of the mean variance, 0.105 at 1, where the original weights had
0.104. Noise in the inputs makes such a fit shrink the weights, and with them the confident scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.model.decode import decode_rows
from edgeq.quantize.drift import has_rows
from edgeq.quantize.graph import constant_array, head_nodes, node_name, position_count, tail_nodes
from edgeq.quantize.observe import session_with_outputs
from edgeq.quantize.ort import in_parallel
from edgeq.quantize.recipe import Granularity, RangeMethod
from edgeq.quantize.weights import QuantisedWeight, quantize_weight
from edgeq.types import Float32Array, HeadSpec, InputSpec

__all__ = [
    "CompensatedWeight",
    "HeadInputs",
    "Moments",
    "best_by_level",
    "compensated_heads",
    "compensated_rounding",
]

_DAMPING = 0.1
"""Of the mean diagonal, added to it: channels that are nearly always zero must not take the errors, and what
the few objects of the calibration images have in common must not be taken for a law."""
_MOST_INPUTS = 1024
_BACKGROUND = 0.003
"""So much of a certain object every position counts at least: false alarms come from anywhere."""


@dataclass(frozen=True)
class CompensatedWeight:
    """A prediction layer's weight, and the bias that goes with it."""

    weight: QuantisedWeight
    bias_shift: Float32Array
    """(output channels,) to be added to the bias."""


class HeadInputs:
    """What compensation has to know of the inputs of prediction layers."""

    def __init__(self, model: ir.Model, names: Collection[str], *, spec: InputSpec, head: HeadSpec) -> None:
        """Find the layers that are 1x1 convolutions.

        Args:
            model: normalised float model.
            names: of the layers that are to be INT8; those that do not fit are left out.
            spec: of the input.
            head: of the outputs; where its rows cannot be told their positions, all positions count the same.
        """
        self.model, self._spec, self._head = model, spec, head
        found = head_nodes(model.graph, tail_nodes(model.graph))
        self.layers = {node_name(node): node for node in found if node_name(node) in names and _fits(node)}
        self._levels = sorted({position_count(node) for node in found}, reverse=True)
        self._scored = has_rows(head)
        self._tensors = {
            name: node.inputs[0].name or ""
            for name, node in self.layers.items()
            if node.inputs[0] is not None
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Tensors that :meth:`of` reads; none without a layer."""
        scores = [self._head.output] if self._scored and self.layers else []
        return tuple(dict.fromkeys([*self._tensors.values(), *scores]))

    def of(self, values: Mapping[str, Float32Array]) -> dict[str, Moments]:
        """Of one image, by layer."""
        scores: dict[int, Float32Array] = {}
        if self._scored:
            outputs = {self._head.output: values[self._head.output]}
            best = decode_rows(outputs, head=self._head, spec=self._spec)[1].max(axis=1)
            scores = best_by_level(best, self._levels)
        made = {name: _moments(values[name], scores) for name in dict.fromkeys(self._tensors.values())}
        return {layer: made[name] for layer, name in self._tensors.items()}

    def of_images(self, images: Sequence[Float32Array]) -> list[dict[str, Moments]]:
        """Of each image, through the float model."""
        if not images or not self.layers:
            return []
        session, input_name, names = session_with_outputs(self.model, self.names, blocked=True)
        return list(
            in_parallel(
                lambda image: self.of(dict(zip(names, session.run(names, {input_name: image}), strict=True))),
                images,
            )
        )


def compensated_heads(
    inputs: HeadInputs,
    observed: Sequence[Mapping[str, Moments]],
    *,
    granularity: Granularity,
    method: RangeMethod,
    bits: int,
    half_scales: bool = False,
) -> dict[str, CompensatedWeight]:
    """Rounded weights of the prediction layers that are 1x1 convolutions, by node name.

    Args:
        inputs: the layers.
        observed: of calibration images.
        granularity: as for :func:`edgeq.quantize.weights.quantize_weight`, which also chooses the scales.
        method: likewise.
        bits: likewise.
        half_scales: likewise.
    """
    if not observed:
        return {}
    made = {}
    for name, node in inputs.layers.items():
        first, *others = (found[name] for found in observed)
        moments = sum(others, first)
        weight = np.asarray(constant_array(node.inputs[1]), np.float32)
        nearest = quantize_weight(
            weight, axis=0, granularity=granularity, method=method, bits=bits, half_scales=half_scales
        )
        rows, scale = weight.reshape(len(weight), -1), nearest.scale.reshape(-1, 1)
        values = compensated_rounding(rows, scale, moments.covariance, limit=2 ** (bits - 1) - 1)
        shift = (rows - values * scale) @ moments.mean
        made[name] = CompensatedWeight(
            replace(nearest, values=values.reshape(weight.shape)), shift.astype(np.float32)
        )
    return made


def compensated_rounding(
    weight: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    moments: npt.NDArray[np.float64],
    *,
    limit: int,
) -> npt.NDArray[np.int8]:
    """Levels in -limit..limit, of the weight's shape.

    Args:
        weight: (outputs, inputs).
        scale: (outputs, 1) or (1, 1).
        moments: (inputs, inputs), mean of ``x x^T`` or covariance.
        limit: the largest level.
    """
    diagonal = np.diag(moments)
    # Strong inputs first: their errors are the dearest, and most columns are left to take them.
    order = np.argsort(-diagonal, kind="stable")
    damped = moments[np.ix_(order, order)] + np.eye(len(order)) * max(
        _DAMPING * float(diagonal.mean()), 1e-12
    )
    spread = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = weight[:, order].astype(np.float64)
    levels = np.empty(left.shape, np.int8)
    for column in range(left.shape[1]):
        level = np.clip(np.rint(left[:, column] / scale[:, 0]), -limit, limit)
        error = (left[:, column] - level * scale[:, 0]) / spread[column, column]
        left[:, column + 1 :] -= np.outer(error, spread[column, column + 1 :])
        levels[:, order[column]] = level
    return levels


def _fits(node: ir.Node) -> bool:
    weight = constant_array(node.inputs[1]) if node.op_type == "Conv" else None
    return (
        weight is not None
        and node.attributes.get_int("group", 1) == 1
        and set(weight.shape[2:]) == {1}
        and weight.shape[1] <= _MOST_INPUTS
    )


@dataclass(frozen=True)
class Moments:
    """Weighted sums over positions, which add up over images."""

    weight: float
    first: npt.NDArray[np.float64]
    """(channels,)"""
    second: npt.NDArray[np.float64]
    """(channels, channels)"""

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """(channels,)"""
        return self.first / self.weight

    @property
    def covariance(self) -> npt.NDArray[np.float64]:
        """(channels, channels)"""
        return self.second / self.weight - np.outer(self.mean, self.mean)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.weight + other.weight, self.first + other.first, self.second + other.second)


def _moments(values: Float32Array, scores: Mapping[int, Float32Array]) -> Moments:
    """Of (1, channels, height, width) with the scores of its level; none: all positions count the same."""
    x = values.reshape(values.shape[1], -1)
    found = scores.get(x.shape[1])
    weights = np.ones(x.shape[1], np.float32) if found is None else found + np.float32(_BACKGROUND)
    weighted = x * weights
    # Sums of one image in float32, those over images in float64. Not ``@``: the threads of BLAS, called from
    # several threads that infer, wait for each other at full load; that took ten times as long.
    second = np.einsum("ip,jp->ij", weighted, x).astype(np.float64)
    return Moments(float(weights.sum(dtype=np.float64)), weighted.sum(axis=1, dtype=np.float64), second)


def best_by_level(best: Float32Array, levels: Sequence[int]) -> dict[int, Float32Array]:
    """Number of positions of a level -> the best score at each, of (rows,) scores.

    Heads write their rows level by level, and within a level anchor by anchor; nothing where the numbers
    say that this one does not.
    """
    anchors, rest = divmod(len(best), sum(levels))
    if rest or anchors == 0:
        return {}
    ends = np.cumsum([anchors * level for level in levels])
    return {
        level: best[end - anchors * level : end].reshape(anchors, level).max(axis=0)
        for level, end in zip(levels, ends, strict=True)
    }
