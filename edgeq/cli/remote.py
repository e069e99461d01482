"""A device that a command works on with ``--on``: connected, looked at, and what every command asks of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.cli.console import Console
from edgeq.cli.onflags import emulated_label
from edgeq.cli.subject import Subject
from edgeq.device.agent.wire import LIST_CHUNK
from edgeq.device.answers import Facts, LayersPart, parse
from edgeq.device.client import Device
from edgeq.device.errors import DeviceError
from edgeq.device.fleet import DeviceEntry, link_to
from edgeq.device.models import DeviceModel, bundle_model, file_model
from edgeq.device.predictions import Predictor, image_files
from edgeq.device.results import layer_audits
from edgeq.device.worker import Worker
from edgeq.runtimes.base import AuditReport, LayerAudit
from edgeq.types import PostProcess, Prediction

__all__ = ["DeviceSide", "at_work", "audit_on", "model_of", "predict_on", "warn_of_architecture"]


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
        """As `edgeq.machine.machine_facts`, of the device."""
        return self.facts.machine.model_dump()

    def line(self) -> str:
        """The device in one line, with its label where it is emulated."""
        machine = self.facts.machine
        what = self.facts.model or machine.cpu
        text = f"on {self.entry.name}: {what}, {machine.cores} cores, {machine.architecture}"
        return f"{text}; {self.emulated}" if self.emulated else text


@contextmanager
def at_work(
    entry: DeviceEntry, runtimes: Sequence[str], console: Console, *, need: Sequence[str] = ()
) -> Iterator[DeviceSide]:
    """The device, connected and looked at; the agent ends with the block.

    Args:
        entry: which device.
        runtimes: those to look for.
        console: told about reconnections.
        need: those of them that have to be there.

    Raises:
        DeviceError: the device refuses, or lacks the runtime.
    """
    with Worker(link_to(entry), note=console.note) as worker:

        def ask(device: Device) -> Facts:
            return parse(Facts, device.request("facts", {"runtimes": list(runtimes)}), device.name)

        side = DeviceSide(entry, worker, worker.do(ask))
        for name in need:
            _check_runtime(side, name)
        if side.emulated is not None:
            console.warn(f"{entry.name} is {side.emulated}")
        yield side


def _check_runtime(side: DeviceSide, need: str) -> None:
    found = next((entry for entry in side.facts.runtimes if entry.runtime == need), None)
    lacks = found is None or found.version is None
    if not lacks and side.facts.decoder is not None:
        return
    what = f"no {need}" if lacks else "neither OpenCV nor Pillow"
    why = "".join(f" ({text})" for text in found.problems[:1]) if found is not None and lacks else ""
    raise DeviceError(
        f"{side.entry.name}: there is {what} in its Python{why}", fix=_cure(side.entry.on, need, lacks=lacks)
    )


def _cure(on: str, need: str, *, lacks: bool) -> str:
    """How a device gets what it lacks: a runtime, or something that decodes images."""
    from edgeq.device.wheels import RUNTIME_PACKAGES, installs
    from edgeq.runtimes import load_runtime

    if lacks and not installs(need):
        return f"edgeq cannot install it there; {load_runtime(need, installed=False).install}"
    if need in RUNTIME_PACKAGES:
        return f"edgeq device setup {on} --runtime {need}"
    return f"edgeq device setup {on}, which brings numpy and OpenCV and sees the system's {need}"


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
) -> Prediction:
    """One image through the device.

    Raises:
        DeviceError: the device refuses.
    """
    specs = subject.known
    predictor = Predictor(side.worker, model_of(subject), specs.input, specs.head, post, threads=threads)
    return predictor.predict(image_files([image]))[0]
