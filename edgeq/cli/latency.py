"""Float and INT8 in turns on this machine: a latency report with findings, memory and the whole path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from edgeq.benchmark.findings import Finding, benchmark_findings
from edgeq.benchmark.frames import frame_stages, noise_input, synthetic_image
from edgeq.benchmark.latency import LatencyReport
from edgeq.benchmark.loop import Contestant, LoopProgress, measure
from edgeq.benchmark.memory import peak_memory_mb
from edgeq.benchmark.stages import StageReport, measure_stages
from edgeq.benchmark.telemetry import HealthRecord, Telemetry
from edgeq.benchmark.throughput import Throughput, measure_throughput
from edgeq.cli.console import Console
from edgeq.cli.machine import machine_facts
from edgeq.cli.subject import Specs, Subject
from edgeq.data.images import read_image
from edgeq.data.preprocess import preprocess
from edgeq.data.select import evenly
from edgeq.errors import UnavailableError
from edgeq.runtimes.base import AuditReport, Runtime, Session, SessionOptions
from edgeq.runtimes.optional import ConcurrentSession
from edgeq.types import Sample

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["BenchSettings", "Latency", "Rival", "fitted_specs", "measure_latency", "prepared_inputs"]

_INPUT_IMAGES = 8
_STAGE_IMAGES = 32
_STAGE_SHARE = 0.3
"""Of the duration, for the whole path, which comes after the interleaved loop."""
_STAGE_MIN_RUNS = 64


@dataclass(frozen=True)
class Rival:
    """What the subject is compared with."""

    name: str
    artifact: Path
    runtime: Runtime
    default_float: bool = False
    specs: Specs | None = None
    """How to feed it; None: as the subject."""


@dataclass(frozen=True)
class BenchSettings:
    """How to measure."""

    threads: int
    duration_s: float
    min_runs: int = 64
    memory: bool = True


@dataclass(frozen=True)
class Latency:
    """Everything that one ``bench`` learned."""

    report: LatencyReport
    judged: str
    """Name of the subject among the contestants."""
    stages: StageReport | None
    findings: tuple[Finding, ...]
    health: HealthRecord
    settings: BenchSettings
    remarks: tuple[str, ...]
    """What was not measured or is worth a word."""
    real_images: bool
    throughput: Mapping[str, Throughput] = field(default_factory=dict)
    """By contestant, where the sessions were opened for it."""

    def to_json(self) -> dict[str, Any]:
        """The report ``latency``."""
        return {
            **self.report.to_json(),
            "judged": self.judged,
            "settings": asdict(self.settings),
            "findings": [finding.to_json() for finding in self.findings],
            "health": self.health.to_json(),
            "machine": machine_facts(),
            "remarks": list(self.remarks),
            "stages": None if self.stages is None else self.stages.to_json(),
            "real_images": self.real_images,
            "throughput": {name: found.to_json() for name, found in self.throughput.items()},
        }

    def tables(self) -> list[RenderableType]:
        """For the terminal."""
        from edgeq.report.terminal import findings_block, latency_table, stage_table

        threads = f"{self.settings.threads} thread{'s' if self.settings.threads > 1 else ''}"
        parts = [latency_table(self.report.to_json(), title=f"Latency, ms per inference, {threads}")]
        cpu = [f"{entry.name} {entry.cpu.value:.2f}x" for entry in self.report.speedups]
        if cpu:
            parts.append(f"speed-up by CPU time: {', '.join(cpu)}")
        if self.throughput:
            found = [
                f"{name} {value.per_second:.1f} ({value.in_flight} at once)"
                for name, value in self.throughput.items()
            ]
            parts.append(f"inferences a second: {', '.join(found)}")
        if self.stages is not None:
            what = "real images" if self.real_images else "a synthetic image (real ones with --data)"
            parts.append(
                stage_table(self.stages.to_json(), title=f"Whole path of {self.judged}, ms per frame, {what}")
            )
        parts += list(self.remarks)
        if self.findings:
            parts.append(findings_block([finding.to_json() for finding in self.findings]))
        return parts


def measure_latency(
    subject: Subject,
    rivals: Sequence[Rival],
    *,
    settings: BenchSettings,
    samples: Sequence[Sample] = (),
    audit: AuditReport | None = None,
    console: Console,
) -> Latency:
    """Subject and rivals in turns, then the subject's whole path.

    Args:
        subject: what is judged.
        rivals: the first one is the baseline of the ratios.
        settings: threads and times.
        samples: real images; none: made up.
        audit: of the subject, for the findings.
        console: shows the progress.

    Raises:
        ModelError: a model does not load or run.
        UnavailableError: a runtime is not here.
    """
    judged = subject.judged_name(compared=bool(rivals))
    own = Rival(judged, subject.artifact, subject.runtime)
    sessions: dict[str, Session] = {
        r.name: r.runtime.open_session(r.artifact, options=_options(subject, r, settings))
        for r in (*rivals, own)
    }
    specs = {r.name: fitted_specs(r.specs or subject.specs, sessions[r.name]) for r in (*rivals, own)}
    share = 1 - _STAGE_SHARE if subject.specs is not None else 1.0
    with console.progress() as progress, Telemetry() as telemetry:
        report = measure(
            [_contestant(name, session, specs[name], samples) for name, session in sessions.items()],
            duration_s=settings.duration_s * share,
            min_runs=settings.min_runs,
            baseline=rivals[0].name if rivals else None,
            progress=lambda state: progress(*_stage(state)),
        )
        throughput = {}
        if subject.options.performance_hint == "throughput":
            throughput = _throughputs(sessions, specs, samples, settings.duration_s * share)
        stages = None
        judged_specs = specs[judged]
        if judged_specs is not None:
            stages = _whole_path(sessions[judged], judged_specs, samples, settings.duration_s * _STAGE_SHARE)
    report, remarks = _with_facts(report, (*rivals, own), sessions, settings, subject)
    if subject.specs is None:
        remarks.append(f"the whole path was not measured: {subject.unknown}")
    findings = benchmark_findings(
        report, int8=judged if rivals else None, audit=audit, health=telemetry.record
    )
    return Latency(
        report=report,
        judged=judged,
        stages=stages,
        findings=findings,
        health=telemetry.record,
        settings=settings,
        remarks=tuple(remarks),
        real_images=bool(samples),
        throughput=throughput,
    )


def _throughputs(
    sessions: Mapping[str, Session],
    specs: Mapping[str, Specs | None],
    samples: Sequence[Sample],
    duration_s: float,
) -> dict[str, Throughput]:
    """Inferences a second of each, one contestant after the other, each for its part of the time."""
    duration_s /= len(sessions)
    return {
        name: measure_throughput(
            session, prepared_inputs(session, specs[name], samples), duration_s=duration_s
        )
        for name, session in sessions.items()
        if isinstance(session, ConcurrentSession)
    }


def _stage(state: LoopProgress) -> tuple[str, int, int]:
    """Name, tenths of seconds done and in all."""
    return state.phase, int(min(state.elapsed_s, state.duration_s) * 10), max(1, int(state.duration_s * 10))


def fitted_specs(specs: Specs | None, session: Session) -> Specs | None:
    """The specs with the input's layout as the session has it."""
    return None if specs is None else specs.fitted(session)


def _contestant(name: str, session: Session, specs: Specs | None, samples: Sequence[Sample]) -> Contestant:
    return Contestant(name, session.infer, prepared_inputs(session, specs, samples))


def prepared_inputs(
    session: Session, specs: Specs | None, samples: Sequence[Sample]
) -> list[npt.NDArray[Any]]:
    """Prepared inputs: of real images, or of a made-up one, or noise where the specs are not known."""
    if specs is None:
        return [noise_input(session)]
    images = [read_image(sample.path) for sample in evenly(samples, _INPUT_IMAGES)] or [synthetic_image()]
    return [preprocess(image, specs.input)[0] for image in images]


def _options(subject: Subject, rival: Rival, settings: BenchSettings) -> SessionOptions:
    """As the user asks of the subject's runtime: a rival in the same one is not to run otherwise."""
    return replace(subject.options, threads=settings.threads, default_float=rival.default_float)


def _whole_path(session: Session, specs: Specs, samples: Sequence[Sample], duration_s: float) -> StageReport:
    """Decode (real images only), pre-process, infer and post-process, frame by frame."""
    decode = read_image if samples else None
    stages = frame_stages(session, specs.input, specs.head, decode=decode)
    items: list[Any] = [sample.path for sample in evenly(samples, _STAGE_IMAGES)] or [synthetic_image()]
    return measure_stages(items, stages, duration_s=duration_s, min_runs=_STAGE_MIN_RUNS)


def _with_facts(
    report: LatencyReport,
    contestants: Sequence[Rival],
    sessions: dict[str, Session],
    settings: BenchSettings,
    subject: Subject,
) -> tuple[LatencyReport, list[str]]:
    """The report with session details, sizes and peak memory, and what could not be had."""
    remarks: list[str] = []
    for entry in contestants:
        memory: float | None = None
        options = _options(subject, entry, settings)
        if settings.memory:
            try:
                memory = peak_memory_mb(entry.artifact, entry.runtime.session_factory, options=options)
            except UnavailableError as error:
                remarks.append(f"peak memory not measured: {error.message}")
        size_mb = subject.size_mb if entry.artifact == subject.artifact else _size_mb(entry.artifact)
        report = report.with_facts(
            entry.name, details=sessions[entry.name].details, peak_memory_mb=memory, size_mb=size_mb
        )
    return report, remarks


def _size_mb(artifact: Path) -> float:
    files = [artifact] if artifact.is_file() else [path for path in artifact.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6
