"""A whole latency measurement, the same on this machine and in a device's agent.

Entries in turns, then the whole path of one of them and frames at a rate, with the machine's health all the
while; peak memory last, in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgeq.benchmark.blocks import SelfTimed, measure_blocks
from edgeq.benchmark.frames import ImageFeed
from edgeq.benchmark.latency import LatencyReport
from edgeq.benchmark.loop import Contestant, LoopProgress, measure
from edgeq.benchmark.memory import peak_memory_mb
from edgeq.benchmark.rate import RateReport, measure_rate
from edgeq.benchmark.stages import Stage, StageReport, measure_stages
from edgeq.benchmark.steady import WarmUp
from edgeq.benchmark.telemetry import HealthRecord, Telemetry
from edgeq.benchmark.throughput import Throughput, measure_throughput
from edgeq.errors import UnavailableError
from edgeq.model.fitting import fit_specs
from edgeq.runtimes.base import Runtime, Session, SessionOptions
from edgeq.runtimes.optional import ConcurrentSession, SelfTimedSession
from edgeq.types import HeadSpec, InputSpec

__all__ = ["Course", "Entry", "Outcome", "WholePath", "run_course"]

_PATH_SHARE = 0.3
"""Of the duration, for the whole path, which comes after the interleaved loop."""
_PATH_MIN_RUNS = 64
Progress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done and how much there is."""


@dataclass(frozen=True)
class Entry:
    """One model to be timed."""

    name: str
    artifact: Path
    runtime: Runtime
    options: SessionOptions
    input: InputSpec | None
    """None: not known, so noise is fed."""


@dataclass(frozen=True)
class WholePath:
    """Whose whole path to measure."""

    name: str
    input: InputSpec
    head: HeadSpec


@dataclass(frozen=True)
class Course:
    """What to measure, and how."""

    entries: Sequence[Entry]
    """Names differ."""
    images: ImageFeed
    duration_s: float
    baseline: str | None = None
    """Whom the ratios refer to; None: the first entry."""
    min_runs: int = 64
    warm_up: WarmUp | None = None
    """When a model counts as warm; None: the default rule."""
    path: WholePath | None = None
    """Measured as well; None: of none of them."""
    rate_hz: float | None = None
    """Also frames of the whole path at this rate, for the whole duration again."""
    throughput: bool = False
    """Also inferences a second, of sessions that run several at once."""
    memory: bool = True


@dataclass(frozen=True)
class Outcome:
    """What was measured."""

    report: LatencyReport
    """With what ran and the peak memory; sizes are not in it."""
    stages: StageReport | None
    rate: RateReport | None
    throughput: Mapping[str, Throughput]
    """By entry."""
    health: HealthRecord
    remarks: tuple[str, ...]
    """What could not be measured, and why."""


def run_course(course: Course, *, progress: Progress) -> Outcome:
    """The measurement.

    Raises:
        DataError: an image cannot be read.
        ModelError: a model does not load or run.
        SpecError: a model takes or gives something else than its specs say.
        UnavailableError: a runtime is not here, or one that times itself meets one that does not.
    """
    sessions = {e.name: e.runtime.open_session(e.artifact, options=e.options) for e in course.entries}
    own = _self_timed(sessions)
    if own:
        # Of this process, these would be the cost of starting another one.
        course = replace(course, path=None, memory=False)
    contestants = [
        Contestant(e.name, sessions[e.name].infer, course.images.inputs(sessions[e.name], e.input))
        for e in course.entries
    ]
    steps = _steps(course, sessions)
    loop_s = course.duration_s * (1 - _PATH_SHARE if course.path is not None else 1)
    with Telemetry() as telemetry:
        report = _latency(course, contestants, own, loop_s, progress)
        throughput = _throughputs(contestants, sessions, loop_s) if course.throughput else {}
        if course.path is not None:
            progress("whole path", 0, 1)
        stages, rate = _whole_path(course, steps)
    for name, session in sessions.items():
        report = report.with_facts(name, details=session.details)
    report, remarks = _with_memory(report, course)
    if own:
        how = next(iter(own.values())).timing
        remarks = (f"{how}; CPU time, peak memory and the whole path were not measured", *remarks)
    return Outcome(report, stages, rate, throughput, telemetry.record, remarks)


def _self_timed(sessions: Mapping[str, Session]) -> Mapping[str, SelfTimedSession]:
    """All of them, where they time themselves; none, where they are timed from outside.

    Raises:
        UnavailableError: some do and some do not.
    """
    own = {name: session for name, session in sessions.items() if isinstance(session, SelfTimedSession)}
    others = [name for name in sessions if name not in own]
    if own and others:
        raise UnavailableError(
            f"{', '.join(own)}: {next(iter(own.values())).timing}; {', '.join(others)} cannot be timed so, "
            "and times that are taken otherwise cannot be compared",
            fix="measure them apart",
        )
    return own


def _latency(
    course: Course,
    contestants: Sequence[Contestant],
    own: Mapping[str, SelfTimedSession],
    duration_s: float,
    progress: Progress,
) -> LatencyReport:
    """Run by run, or in blocks where the sessions time themselves."""
    timed = [SelfTimed(entry.name, own[entry.name], entry.inputs) for entry in contestants if own]
    run = partial(measure_blocks, timed) if timed else partial(measure, contestants)
    return run(
        duration_s=duration_s,
        min_runs=course.min_runs,
        warm_up=course.warm_up,
        baseline=course.baseline,
        progress=lambda state: progress(*_tenths(state)),
    )


def _tenths(state: LoopProgress) -> tuple[str, int, int]:
    """Name, tenths of seconds done and in all."""
    return state.phase, int(min(state.elapsed_s, state.duration_s) * 10), max(1, int(state.duration_s * 10))


def _steps(course: Course, sessions: Mapping[str, Session]) -> list[Stage]:
    """Stages of the whole path, none where it is not measured; what does not fit shows before minutes of
    measuring."""
    if course.path is None:
        return []
    session = sessions[course.path.name]
    fitted = fit_specs(course.path.input, course.path.head, session.inputs, session.outputs)
    return course.images.stages(session, *fitted)


def _throughputs(
    contestants: Sequence[Contestant], sessions: Mapping[str, Session], duration_s: float
) -> dict[str, Throughput]:
    """Inferences a second of each, one after the other, each for its part of the time."""
    found = {}
    for entry in contestants:
        session = sessions[entry.name]
        if isinstance(session, ConcurrentSession):
            found[entry.name] = measure_throughput(
                session, entry.inputs, duration_s=duration_s / len(sessions)
            )
    return found


def _whole_path(course: Course, steps: Sequence[Stage]) -> tuple[StageReport | None, RateReport | None]:
    """A frame's way, stage by stage; then frames at the rate."""
    if not steps:
        return None, None
    frames = course.images.frames()
    stages = measure_stages(
        frames,
        steps,
        duration_s=course.duration_s * _PATH_SHARE,
        min_runs=min(_PATH_MIN_RUNS, course.min_runs),
        warm_up=course.warm_up,
    )
    if course.rate_hz is None:
        return stages, None

    def whole(value: Any) -> None:
        for step in steps:
            value = step.run(value)

    return stages, measure_rate(whole, frames, rate_hz=course.rate_hz, duration_s=course.duration_s)


def _with_memory(report: LatencyReport, course: Course) -> tuple[LatencyReport, tuple[str, ...]]:
    """The report with the peak memory of each entry, and why some could not be had."""
    remarks = []
    for entry in course.entries if course.memory else ():
        try:
            peak_mb = peak_memory_mb(entry.artifact, entry.runtime.session_factory, options=entry.options)
        except UnavailableError as error:
            remarks.append(f"peak memory not measured: {error.message}")
        else:
            report = report.with_facts(entry.name, peak_memory_mb=peak_mb)
    return report, tuple(remarks)
