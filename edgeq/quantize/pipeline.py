"""Quantise: float model and calibration images in, QDQ model with its plan and reasons out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgeq.data.stream import iter_tensors
from edgeq.model.source import FloatModel
from edgeq.quantize.auto import choose_grids
from edgeq.quantize.cache import StatisticsCache, default_cache_folder
from edgeq.quantize.compensate import CompensatedWeight, HeadInputs, Moments, compensated_heads
from edgeq.quantize.drift import OutputDrift, has_rows
from edgeq.quantize.equalize import equalize_depthwise
from edgeq.quantize.glances import Glances
from edgeq.quantize.graph import head_nodes, is_depthwise, node_name, tail_nodes
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.observe import Observer
from edgeq.quantize.ort import in_parallel
from edgeq.quantize.outcome import Quantized, layer_reports
from edgeq.quantize.plan import Plan
from edgeq.quantize.planner import build_plan
from edgeq.quantize.precision import assign_precisions
from edgeq.quantize.predict import Answer, DropPredictor, answer
from edgeq.quantize.recipe import Precision, Recipe
from edgeq.quantize.scheme import Placement, Scheme
from edgeq.quantize.sensitivity import Harm, OutputNoise
from edgeq.quantize.split_heads import split_heads
from edgeq.quantize.statistics import Statistics, merge_statistics
from edgeq.quantize.tune import tune
from edgeq.types import Float32Array, Sample

__all__ = ["CalibrationSet", "default_cache_folder", "quantize"]

Progress = Callable[[str, int, int], None]

_CHUNK_IMAGES = 16
"""Statistics are kept after every so many images, so that an interrupted run goes on from there."""
_RANGE_IMAGES, _FEWEST_RANGE_IMAGES = 8, 4
_ERROR_IMAGES, _FEWEST_ERROR_IMAGES = 8, 6
_EQUALIZE_IMAGES = 16
_MOMENT_IMAGES, _FEWEST_MOMENT_IMAGES = 24, 12
_PREDICTION_IMAGES, _FEWEST_PREDICTION_IMAGES = 48, 32
_RANKING_IMAGES = 8
_USUAL_PX, _MOST_MORE = 416 * 416, 2.0
"""Models with smaller inputs take more images in proportion, up to twice as many: as much work, steadier
numbers. Those with larger inputs take fewer, where so many positions make up for that."""


@dataclass(frozen=True)
class CalibrationSet:
    """Checked calibration images."""

    samples: tuple[Sample, ...]
    digests: Mapping[str, str]
    """Sample key -> digest of the image's content."""
    origin: str
    split: str


def quantize(
    model: FloatModel,
    calibration: CalibrationSet,
    scheme: Scheme,
    recipe: Recipe,
    *,
    cache_folder: Path | None,
    progress: Progress | None = None,
) -> Quantized:
    """INT8 for one runtime.

    Args:
        model: the float model.
        calibration: checked images; all of them are used.
        scheme: what the runtime's kernels accept.
        recipe: choices of the user.
        cache_folder: where statistics are kept; None: nowhere.
        progress: called with (stage, done, total).

    Raises:
        CalibrationError: no images, or the float model gives NaN.
        RecipeError: a rule that matches nothing.
    """
    clock = _Clock()
    report = progress or (lambda stage, done, total: None)
    score_layers: frozenset[str] = frozenset()
    if scheme.split_heads:
        split = split_heads(ir.serde.deserialize_model(onnx.load_from_string(model.onnx_bytes)))
        score_layers = split.heavy_scores
        if split.layers:
            model = replace(model, onnx_bytes=model_bytes(split.model))
    equalize = recipe.depthwise_equalization
    if scheme.equalize_depthwise if equalize is None else equalize:
        with clock("equalize"):
            model = _equalized(model, calibration, scheme, cache_folder, report)
    graph = _graph(model)
    seen = _Seen(graph, model, calibration, scheme, recipe)
    with clock("calibrate"):
        statistics, cache_hit = _statistics(
            model,
            calibration,
            cache_folder,
            lambda done, total: report("calibrate", done, total),
            seen.glances,
        )
    with clock("ranges"):
        grids = choose_grids(
            graph, scheme, recipe, statistics,
            _tensors(model, calibration, _spread(model, calibration, _RANGE_IMAGES, _FEWEST_RANGE_IMAGES)),
            progress=lambda done, total: report("ranges", done, total),
        )  # fmt: skip

    with clock("weights"):
        heads = _compensated(seen, model, calibration, scheme, recipe)
        weights = {name: found.weight for name, found in heads.items()}
        settled = {name: found.bias_shift for name, found in heads.items()}

    def make_plan(kept: Mapping[str, str], shifts: Mapping[str, Float32Array]) -> Plan:
        # A mean error over all positions is the background's, so it is not taken out of a prediction layer.
        return build_plan(
            graph, scheme, recipe, grids,
            kept_float=kept, score_layers=score_layers, bias_shifts={**shifts, **settled}, weights=weights,
        )  # fmt: skip

    with clock("tune"):
        images = _tensors(
            model, calibration, _spread(model, calibration, _ERROR_IMAGES, _FEWEST_ERROR_IMAGES)
        )
        predictor = _predictor(seen, model, calibration, scheme, recipe)
        tuned = tune(
            graph, recipe, make_plan, images, predictor,
            harm=lambda: _harm(graph, model, images, scheme), max_layers=scheme.max_float_layers,
            points_per_share=scheme.points_per_float_share,
            progress=lambda done, total: report("tune", done, total),
        )  # fmt: skip
    return Quantized(
        qdq=_named(model_bytes(tuned.qdq)),
        plan=tuned.plan,
        recipe=recipe,
        statistics=statistics,
        layers=layer_reports(graph, tuned, statistics),
        predicted_drop_points=None if tuned.chosen is None else tuned.chosen.predicted_drop_points,
        tuning=tuned.steps,
        timings_s=clock.seconds,
        cache_hit=cache_hit,
    )


def _equalized(
    model: FloatModel,
    calibration: CalibrationSet,
    scheme: Scheme,
    cache_folder: Path | None,
    report: Progress,
) -> FloatModel:
    """The model with its depthwise inputs equalised, as a few images show them: any factors are exact."""
    if not any(is_depthwise(node) for node in _graph(model).graph):
        return model
    chosen = _spread(model, calibration, _EQUALIZE_IMAGES, _EQUALIZE_IMAGES)
    few = replace(calibration, samples=tuple(calibration.samples[image] for image in chosen))
    statistics, _ = _statistics(
        model, few, cache_folder, lambda done, total: report("equalize", done, total), Glances()
    )
    equalized, _ = equalize_depthwise(
        model, statistics, least_spread=scheme.least_equalized_spread, behind=not _integer_kernels(scheme)
    )
    return equalized


def _graph(model: FloatModel) -> ir.Model:
    return ir.serde.deserialize_model(onnx.load_from_string(model.onnx_bytes))


class _Seen:
    """What is seen of the float model's tensors while statistics are taken, for the stages behind."""

    def __init__(
        self, graph: ir.Model, model: FloatModel, calibration: CalibrationSet, scheme: Scheme, recipe: Recipe
    ) -> None:
        self.glances = Glances()
        self.head_inputs = HeadInputs(
            graph, _compensated_names(graph, scheme, recipe), spec=model.input, head=model.head
        )
        self.moment_images = _spread(model, calibration, _MOMENT_IMAGES, _FEWEST_MOMENT_IMAGES)
        self.moments: Mapping[int, dict[str, Moments]] = {}
        if self.head_inputs.layers:
            self.moments = self.glances.ask(self.head_inputs.names, self.moment_images, self.head_inputs.of)
        self.prediction_images = _spread(model, calibration, _PREDICTION_IMAGES, _FEWEST_PREDICTION_IMAGES)
        self.answers: Mapping[int, Answer] = {}
        if recipe.max_predicted_drop is not None:
            self.answers = self.glances.ask(
                [model.head.output],
                self.prediction_images,
                lambda values: answer(values, spec=model.input, head=model.head),
            )


def _compensated_names(graph: ir.Model, scheme: Scheme, recipe: Recipe) -> list[str]:
    """Prediction layers that are INT8; a bias in int32 may ask for other scales."""
    if not recipe.weight_compensation or scheme.quantize_bias:
        return []
    ops = assign_precisions(graph, scheme, recipe)
    heads = [node_name(node) for node in head_nodes(graph.graph, tail_nodes(graph.graph))]
    return [name for name in heads if ops[name].precision is Precision.INT8]


def _compensated(
    seen: _Seen, model: FloatModel, calibration: CalibrationSet, scheme: Scheme, recipe: Recipe
) -> dict[str, CompensatedWeight]:
    """Weights of the prediction layers that are INT8."""
    if not seen.head_inputs.layers:
        return {}
    missing = [image for image in seen.moment_images if image not in seen.moments]
    computed = seen.head_inputs.of_images(_tensors(model, calibration, missing))
    moments = {**seen.moments, **dict(zip(missing, computed, strict=True))}
    return compensated_heads(
        seen.head_inputs, [moments[image] for image in seen.moment_images],
        granularity=recipe.granularity, method=recipe.weight_range,
        bits=recipe.weight_bits or scheme.weight_bits, half_scales=scheme.half_scales,
    )  # fmt: skip


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)


def _statistics(
    model: FloatModel,
    calibration: CalibrationSet,
    cache_folder: Path | None,
    report: Callable[[int, int], None],
    glances: Glances,
) -> tuple[Statistics, bool]:
    """Statistics from the cache, or observed piece by piece with each piece kept until all are there."""
    cache = StatisticsCache(cache_folder, model_sha256=model.sha256, spec=model.input)
    digests = [calibration.digests[sample.key] for sample in calibration.samples]
    whole = cache.load(digests)
    if whole is not None:
        return whole, True
    observer = Observer(_graph(model), watched=glances.names)
    total = len(calibration.samples)
    done = _Counter(lambda count: report(count, total))

    def piece(start: int) -> Statistics:
        chunk = slice(start, start + _CHUNK_IMAGES)
        known = cache.load(digests[chunk])
        if known is not None:
            done.add(len(digests[chunk]))
            return known
        tensors = (tensor for _, tensor, _ in iter_tensors(calibration.samples[chunk], model.input))
        looks = glances.looks(range(start, min(start + _CHUNK_IMAGES, total)))
        observed = observer.observe(tensors, looks=looks, progress=lambda _: done.add(1))
        cache.store(digests[chunk], observed, compress=False)
        return observed

    pieces = list(in_parallel(piece, range(0, max(total, 1), _CHUNK_IMAGES)))
    statistics = merge_statistics(pieces)
    cache.store(digests, statistics)
    for start in range(0, total, _CHUNK_IMAGES):
        if total > _CHUNK_IMAGES:
            cache.drop(digests[start : start + _CHUNK_IMAGES])
    return statistics, False


class _Counter:
    """Counts from several threads."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self._report, self._count, self._lock = report, 0, threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._count += count
            self._report(self._count)


def _spread(model: FloatModel, calibration: CalibrationSet, usual: int, fewest: int) -> list[int]:
    """Numbers of evenly spread calibration images, so many for inputs of a usual size."""
    total = len(calibration.samples)
    scale = min(_MOST_MORE, _USUAL_PX / (model.input.height_px * model.input.width_px))
    count = max(fewest, round(usual * scale))
    return [int(i) for i in np.unique(np.linspace(0, total - 1, min(count, total)).round())]


def _tensors(model: FloatModel, calibration: CalibrationSet, images: Sequence[int]) -> list[Float32Array]:
    """Pre-processed inputs of these calibration images."""
    chosen = [calibration.samples[image] for image in images]
    return [tensor for _, tensor, _ in iter_tensors(chosen, model.input, workers=2)]


def _harm(graph: ir.Model, model: FloatModel, images: Sequence[Float32Array], scheme: Scheme) -> Harm:
    """What layers are ranked by: objects where the head shows them, else the prediction layers' noise."""
    few = images[:: max(1, len(images) // _RANKING_IMAGES)][:_RANKING_IMAGES]
    if has_rows(model.head):
        return OutputDrift(
            graph, few, spec=model.input, head=model.head, integer_kernels=_integer_kernels(scheme)
        )
    return OutputNoise(graph, few)


def _integer_kernels(scheme: Scheme) -> bool:
    """Whether the layers of its QDQ models give rounded numbers."""
    return scheme.placement is Placement.EVERY_TENSOR


def _predictor(
    seen: _Seen, model: FloatModel, calibration: CalibrationSet, scheme: Scheme, recipe: Recipe
) -> DropPredictor | None:
    if recipe.max_predicted_drop is None:
        return None
    known = [(place, seen.answers.get(image)) for place, image in enumerate(seen.prediction_images)]
    return DropPredictor(
        model.onnx_bytes, _tensors(model, calibration, seen.prediction_images),
        spec=model.input, head=model.head, integer_kernels=_integer_kernels(scheme),
        known={place: found for place, found in known if found is not None},
    )  # fmt: skip


def _named(qdq: bytes) -> bytes:
    """The QDQ model signed as ours; it keeps the source's metadata, by which other tools know it."""
    proto = onnx.load_from_string(qdq)
    proto.producer_name = "edgeq"
    return bytes(proto.SerializeToString())
