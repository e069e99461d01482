"""What ``--on`` does for ``evaluate``, ``bench``, ``audit`` and ``predict``: one device's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.benchmark.drift import Drift, drift_of
from edgeq.benchmark.findings import Finding, FindingKind, benchmark_findings
from edgeq.benchmark.rate import RateReport
from edgeq.cli.accuracy import Accuracy
from edgeq.cli.console import Console
from edgeq.cli.latency import BenchSettings, Latency, Rival
from edgeq.cli.onflags import emulated_label
from edgeq.cli.subject import Subject
from edgeq.cores import core_count
from edgeq.data.images import read_image
from edgeq.data.preprocess import preprocess
from edgeq.data.select import evenly, select
from edgeq.device.agent.wire import LIST_CHUNK
from edgeq.device.answers import Facts, LayersPart, layer_audits, parse
from edgeq.device.client import Device
from edgeq.device.errors import DeviceError
from edgeq.device.fleet import DeviceEntry, link_to
from edgeq.device.latency import BenchOrder, Entrant, bench_on
from edgeq.device.models import DeviceModel, bundle_model, file_model
from edgeq.device.parity import Parity, parity
from edgeq.device.predictions import Predictor, image_files
from edgeq.device.worker import Worker
from edgeq.evaluate.run import Evaluation, compare, evaluate, evaluation_of, prediction_agreement
from edgeq.model.decode import decode_classes, decode_detections
from edgeq.runtimes import missing_modules, runs_here
from edgeq.runtimes.base import AuditReport, LayerAudit, SessionOptions
from edgeq.types import Dataset, Detections, Float32Array, PostProcess, Sample, Task

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "BenchWish",
    "DeviceAccuracy",
    "DeviceBench",
    "DeviceSide",
    "HostSide",
    "accuracy_on",
    "at_work",
    "audit_on",
    "bench_report_on",
    "health_line",
    "model_of",
    "predict_on",
    "warn_of_architecture",
]

PARITY_IMAGES = 16
_STAGE_IMAGES = 32


@dataclass(frozen=True)
class DeviceSide:
    """A device that is connected and looked at."""

    entry: DeviceEntry
    worker: Worker
    facts: Facts

    @property
    def emulated(self) -> str | None:
        """The label of an emulated board; None for a real one."""
        return emulated_label(self.facts.emulated)

    def to_json(self) -> dict[str, Any]:
        """What stands in every report made on a device."""
        return {
            "name": self.entry.name,
            "model": self.facts.model,
            "emulated": self.emulated,
            "runtimes": {entry.runtime: entry.version for entry in self.facts.runtimes},
            "reconnections": self.worker.reconnections,
            "sent_mb": self.worker.device.sent_bytes / 1e6,
        }

    @property
    def machine(self) -> dict[str, Any]:
        """As `edgeq.cli.machine.machine_facts`, of the device."""
        return self.facts.machine.model_dump()

    def line(self) -> str:
        """The device in one line, with its label where it is emulated."""
        machine = self.facts.machine
        what = self.facts.model or machine.cpu
        text = f"on {self.entry.name}: {what}, {machine.cores} cores, {machine.architecture}"
        return f"{text}; {self.emulated}" if self.emulated else text


@contextmanager
def at_work(
    entry: DeviceEntry, runtimes: Sequence[str], console: Console, *, need: str | None = None
) -> Iterator[DeviceSide]:
    """The device, connected and looked at; the agent ends with the block.

    Args:
        entry: which device.
        runtimes: those to look for.
        console: told about reconnections.
        need: a runtime that has to be there.

    Raises:
        DeviceError: the device refuses, or lacks the runtime.
    """
    with Worker(link_to(entry), note=console.note) as worker:

        def ask(device: Device) -> Facts:
            return parse(Facts, device.request("facts", {"runtimes": list(runtimes)}), device.name)

        side = DeviceSide(entry, worker, worker.do(ask))
        if need is not None:
            _check_runtime(side, need)
        if side.emulated is not None:
            console.warn(f"{entry.name} is {side.emulated}")
        yield side


def _check_runtime(side: DeviceSide, need: str) -> None:
    found = next((entry for entry in side.facts.runtimes if entry.runtime == need), None)
    lacks = found is None or found.version is None
    if not lacks and side.facts.decoder is not None:
        return
    what = f"no {need}" if lacks else "neither OpenCV nor Pillow"
    raise DeviceError(
        f"{side.entry.name}: there is {what} in its Python",
        fix=f"edgeq device setup {side.entry.on} --runtime {need}",
    )


def model_of(subject: Subject) -> DeviceModel:
    """The judged artifact as it goes to a device."""
    bundle = subject.bundle
    model = file_model(subject.artifact, subject.runtime.name) if bundle is None else bundle_model(bundle)
    return replace(model, options=subject.options)


def warn_of_architecture(subject: Subject, side: DeviceSide, console: Console) -> None:
    """Say it where a bundle was made for another kind of machine than the device."""
    from edgeq.errors import EdgeqError
    from edgeq.targets import load_target

    if subject.bundle is None:
        return
    try:
        target = load_target(subject.bundle.manifest.target)
    except EdgeqError:
        return
    if target.architecture != side.facts.machine.architecture:
        console.warn(
            f"{side.entry.name} is {side.facts.machine.architecture}, the bundle is for {target.name} "
            f"({target.architecture}): its numbers are not those of the target"
        )


@dataclass(frozen=True)
class HostSide:
    """What is computed here once for all devices."""

    reference: Evaluation | None
    """Of the float model."""
    sample: Dataset
    """The images of the parity check."""
    predictions: tuple[Detections | Float32Array, ...] | None
    """Of the artifact on them; None: its runtime is not here."""

    @classmethod
    def of(cls, subject: Subject, dataset: Dataset, post: PostProcess, console: Console) -> HostSide:
        """Float metrics on all images, the artifact's predictions on a few."""
        options = replace(subject.options, threads=core_count())
        float_eval, found = None, None
        sample = select(dataset, min(PARITY_IMAGES, len(dataset.samples)))
        if subject.reference is not None:
            specs = subject.reference_specs or subject.known
            session = subject.reference_runtime.open_session(subject.reference, options=options)
            with console.progress() as progress:
                float_eval = evaluate(
                    session, dataset, spec=specs.input, head=specs.head, post=post, workers=core_count(),
                    progress=lambda done, total: progress("evaluate float here", done, total),
                )  # fmt: skip
        if not missing_modules(subject.runtime) and runs_here(subject.runtime):
            found = _reference_predictions(subject, sample, post, options)
        return cls(float_eval, sample, found)


def _reference_predictions(
    subject: Subject, sample: Dataset, post: PostProcess, options: SessionOptions
) -> tuple[Detections | Float32Array, ...]:
    """The artifact's predictions here, on pixels that are the same on every machine."""
    session = subject.runtime.open_session(subject.artifact, options=options)
    specs = subject.known.fitted(session)
    out: list[Detections | Float32Array] = []
    for entry in sample.samples:
        tensor, geometry = preprocess(read_image(entry.path), specs.input, reference=True)
        outputs = session.infer(tensor)
        if specs.head.task is Task.CLASSIFY:
            out.append(decode_classes(outputs, head=specs.head))
        else:
            out.append(
                decode_detections(outputs, head=specs.head, spec=specs.input, geometry=geometry, post=post)
            )
    return tuple(out)


@dataclass(frozen=True)
class DeviceAccuracy:
    """Accuracy measured on a device."""

    accuracy: Accuracy
    parity: Parity | None
    """Device against host, on the same pixels."""
    pixels: Parity | None
    """The device with its own resizing against the device with the host's pixels."""
    device: dict[str, Any]
    machine: dict[str, Any]
    line: str

    def to_json(self) -> dict[str, Any]:
        """The report ``accuracy``, with the device and the parity."""
        return {
            **self.accuracy.to_json(),
            "device": self.device,
            "machine": self.machine,
            "parity": None if self.parity is None else self.parity.to_json(),
            "pixel_parity": None if self.pixels is None else self.pixels.to_json(),
        }

    def tables(self, **options: Any) -> list[RenderableType]:
        """For the terminal."""
        said = "parity not checked: the runtime is not on this machine"
        parts: list[RenderableType] = [self.line, self.parity.sentence() if self.parity else said]
        if self.pixels is not None and not self.pixels.identical:
            parts.append(f"the device's own image library resizes otherwise; {self.pixels.difference()}")
        return [*parts, *self.accuracy.tables(**options)]


def accuracy_on(
    side: DeviceSide, subject: Subject, dataset: Dataset, host: HostSide, post: PostProcess, console: Console
) -> DeviceAccuracy:
    """Metrics of the artifact on the device: parity on a few images first, then all of them.

    Raises:
        DeviceError: the device refuses, or does not answer as a device does.
    """
    specs = subject.known
    predictor = Predictor(
        side.worker, model_of(subject), specs.input, specs.head, post, threads=side.facts.machine.cores
    )
    with console.progress() as progress:
        few = image_files([sample.path for sample in host.sample.samples])
        alike = replace(predictor, reference_pixels=True, answered={}).predict(few, progress=progress)
        pixels = parity(alike, predictor.predict(few, progress=progress))
        same = None if host.predictions is None else parity(host.predictions, alike)
        if same is not None and not same.good:
            console.warn(f"{side.entry.name} does not compute what this machine computes: {same.sentence()}")
        images = image_files([sample.path for sample in dataset.samples])
        predictions = predictor.predict(images, progress=progress)
    int8 = evaluation_of(predictions, dataset, head=specs.head, post=post, session_details=predictor.details)
    drop = agreement = None
    if host.reference is not None:
        drop = compare(host.reference, int8)
        agreement = prediction_agreement(host.reference, int8) if int8.task is Task.CLASSIFY else None
    accuracy = Accuracy(
        int8=int8,
        reference=host.reference,
        drop=drop,
        agreement=agreement,
        name=subject.judged_name(compared=host.reference is not None),
        size_mb=subject.size_mb,
        float_size_mb=None if subject.reference is None else subject.reference.stat().st_size / 1e6,
    )
    return DeviceAccuracy(accuracy, same, pixels, side.to_json(), side.machine, side.line())


@dataclass(frozen=True)
class DeviceBench:
    """Latency measured on a device."""

    latency: Latency
    rate: RateReport | None
    drift: tuple[Drift, ...]
    device: dict[str, Any]
    machine: dict[str, Any]
    line: str

    def to_json(self) -> dict[str, Any]:
        """The report ``latency``, with the device, rate and drift."""
        return {
            **self.latency.to_json(),
            "machine": self.machine,
            "device": self.device,
            "rate": None if self.rate is None else self.rate.to_json(),
            "drift": [entry.to_json() for entry in self.drift],
        }

    def tables(self) -> list[RenderableType]:
        """For the terminal."""
        parts: list[RenderableType] = [self.line, *self.latency.tables(), health_line(self.latency.health)]
        if self.rate is not None and not self.rate.late_ns:
            parts.append(_rate_line(self.rate))
        parts += [
            f"drift of {entry.name}: p50 {entry.first_p50_ms:.2f} ms in the first {entry.window_s:.0f} s, "
            f"{entry.last_p50_ms:.2f} ms in the last ({entry.change:+.1%})"
            for entry in self.drift
        ]
        return parts


@dataclass(frozen=True)
class BenchWish:
    """What the user asks of a latency run."""

    settings: BenchSettings
    affinity: tuple[int, ...] = ()
    rate_hz: float | None = None
    soak: bool = False


def bench_report_on(
    side: DeviceSide,
    subject: Subject,
    rivals: Sequence[Rival],
    wish: BenchWish,
    *,
    samples: Sequence[Sample] = (),
    audit: AuditReport | None = None,
    console: Console,
) -> DeviceBench:
    """Subject and rivals in turns on the device, with everything around it.

    Raises:
        DeviceError: the device refuses, or its numbers cannot be.
    """
    settings, judged = wish.settings, subject.judged_name(compared=bool(rivals))
    specs = subject.specs
    own = Entrant(judged, model_of(subject), None if specs is None else specs.input, subject.size_mb)
    images = image_files([sample.path for sample in evenly(samples, _STAGE_IMAGES)])
    order = BenchOrder(
        entrants=(*(_entrant(rival, subject) for rival in rivals), own),
        baseline=rivals[0].name if rivals else None,
        duration_s=settings.duration_s,
        min_runs=settings.min_runs,
        threads=settings.threads,
        affinity=wish.affinity,
        memory=settings.memory,
        rate_hz=wish.rate_hz,
        path=None if specs is None else (judged, specs.input, specs.head),
        images=tuple(image.upload for image in images),
    )
    with console.progress() as progress:
        done = bench_on(side.worker, order, emulated=side.emulated is not None, progress=progress)
    drift = drift_of(done.report) if wish.soak else ()
    findings = benchmark_findings(
        done.report, int8=judged if rivals else None, audit=audit, health=done.health
    )
    latency = Latency(
        report=done.report,
        judged=judged,
        stages=done.stages,
        findings=(*_device_findings(side, drift, done.rate), *findings),
        health=done.health,
        settings=settings,
        remarks=done.remarks,
        real_images=bool(samples),
    )
    return DeviceBench(latency, done.rate, drift, side.to_json(), side.machine, side.line())


def audit_on(side: DeviceSide, subject: Subject, *, threads: int, reasons: Mapping[str, str]) -> AuditReport:
    """What really runs in which precision on the device.

    Raises:
        DeviceError: the device refuses.
    """
    model, limited = model_of(subject), dict(list(reasons.items())[:LIST_CHUNK])

    def run(device: Device) -> AuditReport:
        layers: list[LayerAudit] = []

        def take(what: str, data: Any) -> None:
            if what == "layers":
                layers.extend(layer_audits(parse(LayersPart, data, device.name), device.name))

        request = {"model": model.bring(device), "threads": threads, "reasons": limited}
        answer = device.request("audit", request, on_part=take)
        details = answer.get("details") if isinstance(answer, dict) else None
        shown = (
            {str(key)[:100]: str(value)[:500] for key, value in details.items()}
            if isinstance(details, dict)
            else {}
        )
        return AuditReport(subject.runtime.name, tuple(layers), shown)

    return side.worker.do(run)


def predict_on(
    side: DeviceSide, subject: Subject, image: Path, post: PostProcess, threads: int
) -> Detections | Float32Array:
    """One image through the device.

    Raises:
        DeviceError: the device refuses.
    """
    specs = subject.known
    predictor = Predictor(side.worker, model_of(subject), specs.input, specs.head, post, threads=threads)
    return predictor.predict(image_files([image]))[0]


def health_line(health: Any) -> str:
    """Temperature, clock, governor, throttling, power and load in one line."""
    before, after = health.before, health.after
    words = []
    if before.temperature_c is not None and after.temperature_c is not None:
        words.append(f"{before.temperature_c:.0f} to {after.temperature_c:.0f} C")
    if after.frequency_mhz is not None:
        words.append(f"{after.frequency_mhz:.0f} MHz")
    words += [f"governor {name}" for name in health.governors]
    words += [f"{rail} {power:.2f} W" for rail, power in after.power_w.items()]
    if health.others_cores is not None:
        words.append(f"{health.others_cores:.2f} cores busy with other work")
    told = {True: "throttled", False: "not throttled", None: "no sensor tells of throttling"}
    return f"health: {', '.join([*words, told[health.throttled]])}"


def _entrant(rival: Rival, subject: Subject) -> Entrant:
    specs = rival.specs or subject.specs
    model = file_model(rival.artifact, rival.runtime.name)
    files = replace(model, options=replace(subject.options, default_float=rival.default_float))
    size = sum(file.size_bytes for file in files.files.values()) / 1e6
    return Entrant(rival.name, files, None if specs is None else specs.input, size)


def _device_findings(side: DeviceSide, drift: Sequence[Drift], rate: RateReport | None) -> list[Finding]:
    found = []
    if side.emulated is not None:
        found.append(
            Finding(
                FindingKind.EMULATED,
                f"{side.entry.name} is {side.emulated}",
                "measure speed on a real board; trust only what was computed",
            )
        )
    for entry in drift:
        if entry.drifted:
            found.append(
                Finding(
                    FindingKind.DRIFT,
                    f"{entry.name} drifted by {entry.change:+.1%} from its first to its last "
                    f"{entry.window_s:.0f} s",
                    "judge the last minute, or cool the board and measure again",
                    {"change": entry.change},
                )
            )
    if rate is not None and rate.late_ns:
        found.append(
            Finding(
                FindingKind.LATE,
                _rate_line(rate),
                "a lower rate, a smaller model, or more threads",
                {"late_count": float(len(rate.late_ns))},
            )
        )
    return found


def _rate_line(rate: RateReport) -> str:
    late, count = rate.late_ns, len(rate.response_ns)
    text = f"at {rate.rate_hz:g} frames a second {len(late)} of {count} frames were late"
    return f"{text}, by up to {max(late) / 1e6:.1f} ms" if late else text
