"""Float and INT8 in turns on this machine: a latency report with findings, memory and the whole path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.benchmark.course import Course, Entry, WholePath, run_course
from edgeq.benchmark.findings import Finding, benchmark_findings
from edgeq.benchmark.frames import ImageFeed
from edgeq.benchmark.latency import LatencyReport
from edgeq.benchmark.stages import StageReport
from edgeq.benchmark.telemetry import HealthRecord
from edgeq.benchmark.throughput import Throughput
from edgeq.cli.console import Console
from edgeq.cli.subject import Specs, Subject
from edgeq.data.images import read_image
from edgeq.files import size_mb
from edgeq.machine import machine_facts
from edgeq.runtimes.base import AuditReport, Runtime
from edgeq.types import Sample

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["BenchSettings", "Latency", "Rival", "measure_latency"]


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
        cpu = [
            f"{entry.name} {entry.cpu.value:.2f}x" for entry in self.report.speedups if entry.cpu is not None
        ]
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
    entries = [_entry(rival, subject, settings) for rival in rivals]
    entries.append(_entry(Rival(judged, subject.artifact, subject.runtime), subject, settings))
    specs = subject.specs
    course = Course(
        entries=entries,
        images=ImageFeed([sample.path for sample in samples], read_image),
        duration_s=settings.duration_s,
        baseline=rivals[0].name if rivals else None,
        min_runs=settings.min_runs,
        path=None if specs is None else WholePath(judged, specs.input, specs.head),
        throughput=subject.options.performance_hint == "throughput",
        memory=settings.memory,
    )
    with console.progress() as progress:
        outcome = run_course(course, progress=progress)
    report, remarks = outcome.report, list(outcome.remarks)
    for entry in entries:
        own = entry.artifact == subject.artifact
        report = report.with_facts(entry.name, size_mb=subject.size_mb if own else size_mb(entry.artifact))
    if specs is None:
        remarks.append(f"the whole path was not measured: {subject.unknown}")
    findings = benchmark_findings(report, int8=judged if rivals else None, audit=audit, health=outcome.health)
    return Latency(
        report=report,
        judged=judged,
        stages=outcome.stages,
        findings=findings,
        health=outcome.health,
        settings=settings,
        remarks=tuple(remarks),
        real_images=bool(samples),
        throughput=outcome.throughput,
    )


def _entry(rival: Rival, subject: Subject, settings: BenchSettings) -> Entry:
    """With the options that the user asks of the subject's runtime: a rival in it is not to run otherwise."""
    specs = rival.specs or subject.specs
    return Entry(
        name=rival.name,
        artifact=rival.artifact,
        runtime=rival.runtime,
        options=replace(subject.options, threads=settings.threads, default_float=rival.default_float),
        input=None if specs is None else specs.input,
    )
