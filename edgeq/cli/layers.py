"""Where the time of one model goes, layer by layer, as its runtime tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgeq.benchmark.frames import ImageFeed
from edgeq.cli.subject import Subject
from edgeq.data.images import read_image
from edgeq.errors import UnavailableError
from edgeq.runtimes.base import LayerTime
from edgeq.runtimes.optional import ProfiledSession
from edgeq.types import Sample

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["LAYER_RUNS", "layer_times", "layers_json", "layers_table"]

LAYER_RUNS = 20
_SHOWN = 20


def layer_times(subject: Subject, *, threads: int, samples: Sequence[Sample]) -> tuple[LayerTime, ...]:
    """Executed layers in order, each with the median time of some inferences.

    Raises:
        UnavailableError: the runtime does not tell.
        ModelError: the model does not load or run.
    """
    session = subject.runtime.open_session(
        subject.artifact, options=replace(subject.options, threads=threads)
    )
    if not isinstance(session, ProfiledSession):
        raise UnavailableError(
            f"the runtime {subject.runtime.name} tells no times of layers", fix="leave --per-layer out"
        )
    feed = ImageFeed([sample.path for sample in samples[:1]], read_image)
    spec = None if subject.specs is None else subject.specs.input
    return session.profile(feed.inputs(session, spec)[0], runs=LAYER_RUNS)


def layers_json(layers: Sequence[LayerTime]) -> list[dict[str, Any]]:
    """Plain data, in the order of execution."""
    return [asdict(layer) for layer in layers]


def layers_table(layers: Sequence[LayerTime], *, name: str) -> RenderableType:
    """The slowest layers, and what each precision takes in all."""
    from edgeq.report.terminal import layer_table

    total_ms = sum(layer.time_ms for layer in layers) or 1.0
    slowest = sorted(layers, key=lambda layer: -layer.time_ms)[:_SHOWN]
    rest_ms = total_ms - sum(layer.time_ms for layer in slowest)
    sums: dict[str, float] = {}
    for layer in layers:
        sums[layer.precision or "?"] = sums.get(layer.precision or "?", 0.0) + layer.time_ms
    notes = [f"{len(layers) - len(slowest)} other layers: {rest_ms:.2f} ms"] if len(layers) > _SHOWN else []
    parts = sorted(sums.items(), key=lambda item: -item[1])
    notes.append("by precision: " + ", ".join(f"{key} {100 * ms / total_ms:.0f} %" for key, ms in parts))
    title = f"Layers of {name}, ms per inference, median of {LAYER_RUNS}"
    return layer_table(layers_json(slowest), total_ms=total_ms, notes=notes, title=title)
