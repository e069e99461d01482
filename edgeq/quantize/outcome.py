"""What quantising gives: the QDQ model and everything that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from edgeq.quantize.attempts import Tuned, TuningStep
from edgeq.quantize.plan import Plan
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.statistics import Statistics
from edgeq.quantize.teacher import LayerError

__all__ = ["LayerReport", "Quantized", "layer_reports"]


@dataclass(frozen=True)
class LayerReport:
    """One op of the float model and what became of it."""

    node: str
    op_type: str
    precision: str
    reason: str
    noise: float | None
    """Own noise-to-signal ratio in INT8 with exact inputs; None: not a layer with weights."""
    float_range: tuple[float, float] | None
    """Observed range of its output."""
    grid: tuple[float, int] | None
    """Scale and zero point of its output."""
    range_method: str | None


@dataclass(frozen=True)
class Quantized:
    """The QDQ model and everything that explains it."""

    qdq: bytes
    plan: Plan
    recipe: Recipe
    statistics: Statistics
    layers: tuple[LayerReport, ...]
    predicted_drop_points: float | None
    tuning: tuple[TuningStep, ...]
    timings_s: Mapping[str, float]
    cache_hit: bool
    """The statistics came from the cache."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for reports; the model and the statistics are left out."""
        return {
            "runtime": self.plan.runtime,
            "int8_op_count": len(self.plan.int8_ops),
            "float_op_count": len(self.plan.float_ops),
            "image_count": self.statistics.image_count,
            "predicted_drop_points": self.predicted_drop_points,
            "tuning": [asdict(step) for step in self.tuning],
            "layers": [asdict(layer) for layer in self.layers],
            "timings_s": dict(self.timings_s),
            "statistics_from_cache": self.cache_hit,
        }


def layer_reports(graph: ir.Model, tuned: Tuned, statistics: Statistics) -> tuple[LayerReport, ...]:
    """Of every op of the float model, in order."""
    outputs = {node.name or "": node.outputs[0].name or "" for node in graph.graph}
    reports = []
    for name, op in tuned.plan.ops.items():
        error: LayerError | None = tuned.errors.get(name)
        observed = statistics.tensors.get(outputs[name])
        tensor = tuned.plan.tensors.get(outputs[name])
        reports.append(
            LayerReport(
                node=name,
                op_type=op.op_type,
                precision=op.precision.value,
                reason=op.reason,
                noise=None if error is None else error.noise,
                float_range=None if observed is None else (observed.low, observed.high),
                grid=None if tensor is None else (tensor.grid.scale, tensor.grid.zero_point),
                range_method=None if tensor is None else tensor.method,
            )
        )
    return tuple(reports)
