"""Latency on the device: contestants in turns, the whole path, a fixed rate, and health meanwhile.

Only raw samples go to the host, which makes percentiles, ratios and findings of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeq.benchmark.frames import frame_stages, noise_input, synthetic_image
from edgeq.benchmark.loop import Contestant, LoopProgress, measure
from edgeq.benchmark.memory import peak_memory_mb
from edgeq.benchmark.rate import measure_rate
from edgeq.benchmark.stages import Stage, measure_stages
from edgeq.benchmark.steady import WarmUp
from edgeq.benchmark.telemetry import HealthRecord, Telemetry
from edgeq.data.images import decode_image
from edgeq.data.preprocess import preprocess
from edgeq.data.select import evenly
from edgeq.device.agent.models import Model, Models
from edgeq.device.agent.specs import head_spec, input_spec
from edgeq.device.agent.store import Store
from edgeq.device.agent.streams import Answer
from edgeq.errors import UnavailableError
from edgeq.model.fitting import fit_input, fit_specs
from edgeq.runtimes.base import Session

__all__ = ["bench", "prepared_inputs"]

_INPUT_IMAGES = 8
_STAGE_IMAGES = 32
_STAGE_SHARE = 0.3
"""Of the duration, for the whole path, which comes after the interleaved loop."""
_STAGE_MIN_RUNS = 64
_HEALTH_CHUNK = 500


def bench(request: Mapping[str, Any], models: Models, store: Store, answer: Answer) -> dict[str, Any]:
    """Samples in parts, the rest as the result.

    Raises:
        ModelError: a model does not load or run.
        UnavailableError: a runtime is not here.
        BlobLost: an image is not here any more.
    """
    order = _Order.of(request)
    loaded = {name: models.get(entry["model"]) for name, entry in order.entries.items()}
    sessions = {name: model.open(order.threads) for name, model in loaded.items()}
    images = [store.read(sha256) for sha256 in order.images]
    contestants = [
        Contestant(name, session.infer, prepared_inputs(session, order.entries[name].get("input"), images))
        for name, session in sessions.items()
    ]
    share = 1 - _STAGE_SHARE if order.path is not None else 1.0
    answer.part("measuring", {})
    start_ns = time.perf_counter_ns()
    path: dict[str, Any] = {"stages": None, "rate": None}
    with Telemetry() as telemetry:
        report = measure(
            contestants,
            duration_s=order.duration_s * share,
            min_runs=order.min_runs,
            warm_up=order.warm_up,
            baseline=order.baseline,
            progress=lambda state: answer.progress(*_stage(state)),
        )
        # So that the host can hold this clock against its own.
        answer.part("measured", {"elapsed_s": (time.perf_counter_ns() - start_ns) / 1e9})
        if order.path is not None:
            answer.progress("whole path", 0, 1)
            path = _whole_path(order, order.path, sessions[str(order.path["name"])], images, answer)
    for entry in report.contestants:
        answer.series(f"wall {entry.name}", list(entry.wall_ns))
        answer.series(f"cpu {entry.name}", list(entry.cpu_ns))
    memory, remarks = _memory(loaded, order.threads) if order.memory else ({}, [])
    _send_health(telemetry.record, answer)
    found = [
        {
            "name": entry.name,
            "warm_up": asdict(entry.warm_up),
            "details": dict(sessions[entry.name].details),
            "peak_memory_mb": memory.get(entry.name),
        }
        for entry in report.contestants
    ]
    return {**path, "contestants": found, "duration_s": report.duration_s, "order": report.order,
            "seed": report.seed, "remarks": remarks}  # fmt: skip


@dataclass(frozen=True)
class _Order:
    """The request, read."""

    entries: Mapping[str, Mapping[str, Any]]
    """By the contestant's name."""
    baseline: str | None
    duration_s: float
    min_runs: int
    threads: int
    warm_up: WarmUp
    memory: bool
    rate_hz: float | None
    path: Mapping[str, Any] | None
    """Whose whole path to measure; None: of none."""
    images: tuple[str, ...]

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> _Order:
        rate_hz = request.get("rate_hz")
        return cls(
            entries={str(entry["name"]): entry for entry in request["contestants"]},
            baseline=request.get("baseline"),
            duration_s=float(request["duration_s"]),
            min_runs=int(request["min_runs"]),
            threads=int(request["threads"]),
            warm_up=WarmUp(max_s=float(request["warm_up_s"])),
            memory=bool(request["memory"]),
            rate_hz=float(rate_hz) if rate_hz else None,
            path=request.get("path"),
            images=tuple(str(sha256) for sha256 in request["images"][:_STAGE_IMAGES]),
        )


def _stage(state: LoopProgress) -> tuple[str, int, int]:
    """Name, tenths of seconds done and in all."""
    return state.phase, int(min(state.elapsed_s, state.duration_s) * 10), max(1, int(state.duration_s * 10))


def prepared_inputs(session: Session, spec_data: Any, images: list[bytes]) -> list[Any]:
    """Prepared inputs: of real images, of a made-up one, or noise where the input spec is not known."""
    if spec_data is None:
        return [noise_input(session)]
    spec = fit_input(input_spec(spec_data), session.inputs)
    pictures = [decode_image(data, name="image") for data in evenly(images, _INPUT_IMAGES)] if images else []
    return [preprocess(picture, spec)[0] for picture in pictures or [synthetic_image()]]


def _whole_path(
    order: _Order, path: Mapping[str, Any], session: Session, images: list[bytes], answer: Answer
) -> dict[str, Any]:
    """A frame's way, stage by stage; then frames at the rate, for the whole duration again."""
    items: list[Any] = list(images) or [synthetic_image()]

    def decode(data: bytes) -> Any:
        return decode_image(data, name="image")

    spec, head = fit_specs(
        input_spec(path["input"]), head_spec(path["head"]), session.inputs, session.outputs
    )
    stages = frame_stages(session, spec, head, decode=decode if images else None)
    frames = measure_stages(
        items,
        stages,
        duration_s=order.duration_s * _STAGE_SHARE,
        min_runs=min(_STAGE_MIN_RUNS, order.min_runs),
        warm_up=order.warm_up,
    )
    for stage in frames.stages:
        answer.series(f"stage {stage.name}", list(stage.wall_ns))
    told = {"names": [stage.name for stage in frames.stages], "warm_up": asdict(frames.warm_up)}
    if order.rate_hz is None:
        return {"stages": told, "rate": None}
    at_rate = measure_rate(
        lambda item: _run(stages, item), items, rate_hz=order.rate_hz, duration_s=order.duration_s
    )
    answer.series("rate", list(at_rate.response_ns))
    return {"stages": told, "rate": {"rate_hz": at_rate.rate_hz}}


def _run(stages: list[Stage], item: Any) -> None:
    for stage in stages:
        item = stage.run(item)


def _memory(loaded: Mapping[str, Model], threads: int) -> tuple[dict[str, float], list[str]]:
    """Peak memory of each model in a process of its own, and what could not be had."""
    found: dict[str, float] = {}
    remarks: list[str] = []
    for name, model in loaded.items():
        try:
            found[name] = peak_memory_mb(
                model.artifact, model.runtime.session_factory, options=model.options(threads)
            )
        except UnavailableError as error:
            remarks.append(f"peak memory not measured: {error.message}")
    return found, remarks


def _send_health(record: HealthRecord, answer: Answer) -> None:
    """The samples in parts, then the record without them."""
    samples = [asdict(sample) for sample in record.during]
    for start in range(0, len(samples), _HEALTH_CHUNK):
        answer.part("health samples", {"samples": samples[start : start + _HEALTH_CHUNK]})
    answer.part("health", {**asdict(record), "during": []})
