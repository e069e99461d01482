"""A grid for every tensor: the recipe's method, or the range that harms the readers least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgeq.quantize.contest import Candidates, least_noise
from edgeq.quantize.graph import ACTIVATION_OPS, is_depthwise, silu_of, tail_nodes, users
from edgeq.quantize.grid import Range, affine, channel_affine
from edgeq.quantize.head_range import head_range, is_head
from edgeq.quantize.observe import KNOWN_RANGES
from edgeq.quantize.plan import TensorPlan
from edgeq.quantize.precision import matching_rules
from edgeq.quantize.ranges import choose_range, sigmoid, silu
from edgeq.quantize.ranges.mse import Elementwise, mse
from edgeq.quantize.ranges.percentile import percentile
from edgeq.quantize.ranges.tails import channel_ends
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.quantize.scheme import Placement, Scheme
from edgeq.quantize.statistics import ChannelStatistics, Statistics, TensorStatistics
from edgeq.types import Float32Array

__all__ = ["choose_grids"]

_SILU_FLOOR = -4.0
"""silu(-4) = -0.07: below this a SiLU's input needs no levels of its own."""
_BIAS_WEIGHT = 100.0
_CLIP_WEIGHT = 3.0
"""Of squared errors outside a symmetric grid that no depthwise convolution reads. Sums over channels average
rounding out, but clipping hits the strongest values all at once, which are the objects', and a symmetric
grid, half of which a SiLU leaves empty, buys its finer step with more of it. With TensorRT's scheme, against
1: boxes and scores of YOLO11n drift 5 % less on 200 images; distances from the float model's detections on
332 images are 8 to 11 % less for YOLOv5n, YOLOv8n and YOLO11n and the same for YOLOX-Nano; logits of
EfficientNet-Lite0 are 24 % nearer. A depthwise convolution averages nothing out: with 6 for what they read,
too, instead of for all else alone, YOLOX-Nano drifted 12 % more."""
_TOGETHER_MB = 128.0
"""Tensors of so many 10^6 bytes are judged at a time: the exact values of one image, and of their readers."""
_SAME = 0.02
"""Candidates whose ends differ by less, relative to the span, count as one."""


def choose_grids(
    model: ir.Model,
    scheme: Scheme,
    recipe: Recipe,
    statistics: Statistics,
    images: Sequence[Float32Array],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, TensorPlan]:
    """Grid of every tensor that calibration recorded, by name.

    With ``auto``, the range with the least squared error is challenged by others, which have to make less
    noise at the next layers on a few images (:func:`edgeq.quantize.contest.least_noise`).

    Args:
        model: normalised float model.
        scheme: the runtime's.
        recipe: the user's.
        statistics: of the calibration set.
        images: a few pre-processed inputs of the calibration set, for ``auto``.
        progress: called with (tensors judged, tensors).
    """
    rules = matching_rules(model, recipe.rules)
    tail = tail_nodes(model.graph)
    symmetric = scheme.symmetric_activations if recipe.symmetric is None else recipe.symmetric
    grids: dict[str, TensorPlan] = {}
    undecided: list[Candidates] = []
    for node in model.graph:
        if node.op_type in KNOWN_RANGES and node not in tail:
            name = node.outputs[0].name or ""
            whole = affine(Range(*KNOWN_RANGES[node.op_type]), scheme.activation_dtype, symmetric=symmetric)
            grids[name] = TensorPlan(name, scheme.fixed_outputs.get(node.op_type, whole), "fixed")
    for value in _recorded(model, statistics):
        name = value.name or ""
        producer = value.producer()
        if producer is not None and producer in tail:
            continue
        rule = rules.get(producer.name or "") if producer is not None else None
        method = rule.range if rule is not None and rule.range is not None else recipe.range
        observed = statistics.tensors[name]
        own = scheme.depthwise_channel_grids and _feeds_depthwise_only(value)
        if method is not RangeMethod.AUTO:
            interval = choose_range(
                method, observed, dtype=scheme.activation_dtype, symmetric=symmetric,
                activation=_activation(value),
            )  # fmt: skip
            ranges = {method.value: interval}
        elif is_head(value, tail):
            whole_range = choose_range(
                RangeMethod.MINMAX, observed, dtype=scheme.activation_dtype, symmetric=symmetric
            )
            ranges = {"head": head_range(value, whole_range)}
        elif _stays_in_fusion(value, scheme):
            ranges = {"mse": mse(observed, dtype=scheme.activation_dtype, symmetric=symmetric)}
        else:
            ranges = _candidates(
                observed, scheme, symmetric=symmetric, activation=_activation(value),
                clip_weight=_CLIP_WEIGHT if symmetric and _summed_up(value) else 1.0,
            )  # fmt: skip
        ends = _ends(value, observed) if own else None
        plans = _plans(name, ranges, observed.channels, scheme, symmetric=symmetric, ends=ends)
        grids[name] = next(iter(plans.values()))
        if len(plans) > 1:
            undecided.append((value, list(plans.values())))
    done = 0
    for part in _parts(undecided):
        grids.update(least_noise(model, scheme.activation_dtype.value, part, tail, images))
        done += len(part)
        if progress is not None:
            progress(done, len(undecided))
    return grids


def _parts(undecided: Sequence[Candidates]) -> Iterator[list[Candidates]]:
    """So many at a time that their values fit into :data:`_TOGETHER_MB`."""
    part: list[Candidates] = []
    size_mb = 0.0
    for candidates in undecided:
        shape = candidates[0].shape
        sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
        added = 4.0 * math.prod(sizes) / 1e6
        if part and size_mb + added > _TOGETHER_MB:
            yield part
            part, size_mb = [], 0.0
        part.append(candidates)
        size_mb += added
    if part:
        yield part


def _stays_in_fusion(value: ir.Value, scheme: Scheme) -> bool:
    """Whether no plan rounds a value, since runtimes compute it and its activation in one kernel.

    So no contest for its range is needed. Only where roundings stand at the inputs of ops; a value that may
    pass its grid on to another one counts as rounded.
    """
    producer, readers = value.producer(), users(value)
    passes_on = scheme.one_grid_ops | scheme.shared_scale_ops | scheme.joining_ops
    return (
        scheme.placement is Placement.COMPUTE_INPUTS
        and producer is not None
        and producer.op_type not in passes_on
        and bool(readers)
        and all(node.op_type in ACTIVATION_OPS for node in readers)
    )


def _plans(
    name: str,
    ranges: Mapping[str, Range],
    seen: ChannelStatistics | None,
    scheme: Scheme,
    *,
    symmetric: bool,
    ends: tuple[Float32Array, Float32Array] | None,
) -> dict[str, TensorPlan]:
    """Range method -> the tensor's plan with that range.

    With ``ends`` each channel has a grid of its own, from end to end as far as they lie within the tensor's
    range; with the moving average over the range of its average image.
    """
    dtype = scheme.activation_dtype
    plans = {
        key: TensorPlan(name, affine(whole, dtype, symmetric=symmetric), key) for key, whole in ranges.items()
    }
    if ends is None or seen is None:
        return plans
    for key, whole in ranges.items():
        mean = key == RangeMethod.MOVING_AVERAGE.value
        low = seen.mean_low if mean else np.maximum(ends[0], whole.low)
        high = seen.mean_high if mean else np.minimum(ends[1], whole.high)
        plans[key] = replace(plans[key], channels=channel_affine(low, high, dtype, symmetric=symmetric))
    return plans


def _ends(value: ir.Value, observed: TensorStatistics) -> tuple[Float32Array, Float32Array] | None:
    """Ends of a tensor's channels; None where nothing is known of them."""
    if observed.channels is None or value.shape is None:
        return None
    images, positions = len(observed.image_low), math.prod(value.shape.numpy()[2:])
    return channel_ends(observed.channels, images=images, positions=positions)


def _recorded(model: ir.Model, statistics: Statistics) -> list[ir.Value]:
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return [value for value in values if value.name in statistics.tensors]


def _activation(value: ir.Value) -> Elementwise | None:
    """What alone reads a value, if it flattens out: a SiLU, or the gate of an equalised one."""
    readers = users(value)
    if len(readers) == 1 and readers[0].op_type == "Sigmoid":
        return sigmoid
    for node in readers:
        found = silu_of(node)
        if found is not None and found[1] is value and set(readers) == {found[0], node}:
            return silu
    return None


def _summed_up(value: ir.Value) -> bool:
    """Whether no depthwise convolution reads a value: all else adds up over channels."""
    return not any(is_depthwise(node) for node in users(value))


def _feeds_depthwise_only(value: ir.Value) -> bool:
    readers = users(value)
    return bool(readers) and all(is_depthwise(node) and node.inputs[0] is value for node in readers)


def _candidates(
    observed: TensorStatistics,
    scheme: Scheme,
    *,
    symmetric: bool,
    activation: Elementwise | None,
    clip_weight: float,
) -> dict[str, Range]:
    """Distinct ranges worth trying, by the method that gave them; the one to beat comes first."""
    dtype = scheme.activation_dtype
    least = mse(observed, dtype=dtype, symmetric=symmetric, activation=activation, clip_weight=clip_weight)
    unbiased = mse(
        observed, dtype=dtype, symmetric=symmetric, activation=activation, bias_weight=_BIAS_WEIGHT
    )
    average = choose_range(RangeMethod.MOVING_AVERAGE, observed, dtype=dtype, symmetric=symmetric)
    offered = {
        "mse": least,
        "mse-unbiased": unbiased,
        "moving-average": average,
        "percentile": percentile(observed),
        "percentile-99.999": percentile(observed, kept=99.999),
        "minmax": choose_range(RangeMethod.MINMAX, observed, dtype=dtype, symmetric=symmetric),
    }
    if activation is silu:
        floored = ("moving-average", "percentile", "percentile-99.999")
        offered |= {key: Range(max(offered[key].low, _SILU_FLOOR), offered[key].high) for key in floored}
    kept: dict[str, Range] = {}
    for key, interval in offered.items():
        span = max(interval.high, 0.0) - min(interval.low, 0.0)
        if not any(_close(interval, other, span) for other in kept.values()):
            kept[key] = interval
    return kept


def _close(first: Range, second: Range, span: float) -> bool:
    return abs(first.low - second.low) <= _SAME * span and abs(first.high - second.high) <= _SAME * span
