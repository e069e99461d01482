"""Latency on the device: the same measurement as on the host, of which raw samples go there.

The host makes percentiles, ratios and findings of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edgeq.benchmark.course import Course, Entry, Outcome, WholePath, run_course
from edgeq.benchmark.frames import MOST_IMAGES, ImageFeed
from edgeq.benchmark.steady import WarmUp
from edgeq.benchmark.telemetry import HealthRecord
from edgeq.data.images import decode_image
from edgeq.device.agent.models import Model, Models
from edgeq.device.agent.specs import head_spec, input_spec
from edgeq.device.agent.store import Store
from edgeq.device.agent.streams import Answer

__all__ = ["bench", "image_feed"]

_HEALTH_CHUNK = 500


def bench(request: Mapping[str, Any], models: Models, store: Store, answer: Answer) -> dict[str, Any]:
    """Samples in parts, the rest as the result.

    Raises:
        ModelError: a model does not load or run.
        UnavailableError: a runtime is not here.
        BlobLost: an image is not here any more.
    """
    course = _course(request, models, store)
    answer.part("measuring", {})
    start_ns = time.perf_counter_ns()
    outcome = run_course(course, progress=answer.progress)
    # So that the host can hold this clock against its own.
    answer.part("measured", {"elapsed_s": (time.perf_counter_ns() - start_ns) / 1e9})
    _send_samples(outcome, answer)
    _send_health(outcome.health, answer)
    return _without_samples(outcome)


def image_feed(request: Mapping[str, Any], store: Store, *, most: int = MOST_IMAGES) -> ImageFeed:
    """The images that a request names.

    Raises:
        BlobLost: an image is not here any more.
    """
    images = [store.read(str(sha256)) for sha256 in request["images"][:most]]
    return ImageFeed(images, lambda data: decode_image(data, name="image"))


def _course(request: Mapping[str, Any], models: Models, store: Store) -> Course:
    threads, rate_hz, path = int(request["threads"]), request.get("rate_hz"), request.get("path")
    return Course(
        entries=[_entry(entry, models.get(entry["model"]), threads) for entry in request["contestants"]],
        images=image_feed(request, store),
        duration_s=float(request["duration_s"]),
        baseline=request.get("baseline"),
        min_runs=int(request["min_runs"]),
        warm_up=WarmUp(max_s=float(request["warm_up_s"])),
        path=None if path is None else _path(path),
        rate_hz=float(rate_hz) if rate_hz else None,
        memory=bool(request["memory"]),
    )


def _path(data: Mapping[str, Any]) -> WholePath:
    return WholePath(str(data["name"]), input_spec(data["input"]), head_spec(data["head"]))


def _entry(data: Mapping[str, Any], model: Model, threads: int) -> Entry:
    spec = data.get("input")
    return Entry(
        name=str(data["name"]),
        artifact=model.artifact,
        runtime=model.runtime,
        options=model.options(threads),
        input=None if spec is None else input_spec(spec),
    )


def _send_samples(outcome: Outcome, answer: Answer) -> None:
    series: dict[str, Sequence[int]] = {}
    for entry in outcome.report.contestants:
        series |= {f"wall {entry.name}": entry.wall_ns, f"cpu {entry.name}": entry.cpu_ns}
    if outcome.stages is not None:
        series |= {f"stage {stage.name}": stage.wall_ns for stage in outcome.stages.stages}
    if outcome.rate is not None:
        series["rate"] = outcome.rate.response_ns
    for name, values in series.items():
        answer.series(name, list(values))


def _send_health(record: HealthRecord, answer: Answer) -> None:
    """The samples in parts, then the record without them."""
    samples = [asdict(sample) for sample in record.during]
    for start in range(0, len(samples), _HEALTH_CHUNK):
        answer.part("health samples", {"samples": samples[start : start + _HEALTH_CHUNK]})
    answer.part("health", {**asdict(record), "during": []})


def _without_samples(outcome: Outcome) -> dict[str, Any]:
    """The result, but for what was sent in parts."""
    report, stages, rate = outcome.report, None, None
    if outcome.stages is not None:
        names = [stage.name for stage in outcome.stages.stages]
        stages = {"names": names, "warm_up": asdict(outcome.stages.warm_up)}
    if outcome.rate is not None:
        rate = {"rate_hz": outcome.rate.rate_hz}
    return {
        "contestants": [
            {
                "name": entry.name,
                "warm_up": asdict(entry.warm_up),
                "details": dict(entry.details),
                "peak_memory_mb": entry.peak_memory_mb,
            }
            for entry in report.contestants
        ],
        "stages": stages,
        "rate": rate,
        "duration_s": report.duration_s,
        "order": report.order,
        "seed": report.seed,
        "block": report.block,
        "remarks": list(outcome.remarks),
    }
