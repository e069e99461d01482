"""``evaluate --on``: metrics of predictions made on a device, and how far they equal this machine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.cli.accuracy import Accuracy, accuracy_of
from edgeq.cli.console import Console
from edgeq.cli.remote import DeviceSide, model_of
from edgeq.cli.subject import Subject
from edgeq.data.select import select
from edgeq.data.stream import iter_tensors
from edgeq.device.models import DeviceModel, file_model
from edgeq.device.parity import Parity, parity
from edgeq.device.predictions import ImageFile, Predictor, image_files
from edgeq.device.tensors import TensorDigests, TensorParity, digests_on, tensor_parity
from edgeq.errors import UnavailableError
from edgeq.evaluate.run import Evaluation, evaluate, evaluation_of
from edgeq.machine import core_count
from edgeq.model.decode import decode_outputs
from edgeq.runtimes import missing_modules, runs_here
from edgeq.runtimes.optional import ShowsIntegers
from edgeq.types import Dataset, PostProcess, Prediction

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["DeviceAccuracy", "HostSide", "accuracy_on"]

PARITY_IMAGES = 16


@dataclass(frozen=True)
class _Integers:
    """The artifact that shows its INT8 part, and what it gives here."""

    model: DeviceModel
    digests: tuple[TensorDigests, ...]
    begins: frozenset[str]


@dataclass(frozen=True)
class HostRun:
    """What the artifact computes here on the images of the parity check."""

    predictions: tuple[Prediction, ...]
    outputs: tuple[TensorDigests, ...]
    integers: _Integers | None
    """None: nothing is INT8, or the runtime does not show it."""
    shown: bool
    """Whether the runtime shows where INT8 begins and ends."""

    @classmethod
    def of(cls, subject: Subject, sample: Dataset, post: PostProcess, folder: Path) -> HostRun:
        """Run the artifact, and the one that shows its INT8 part, which is written into the folder."""
        runtime, options = subject.runtime, replace(subject.options, threads=core_count())
        session = runtime.open_session(subject.artifact, options=options)
        specs = subject.known.fitted(session)
        shown, part = isinstance(runtime, ShowsIntegers), None
        if isinstance(runtime, ShowsIntegers):
            try:
                part = runtime.integer_part(subject.artifact, folder)
            except UnavailableError:  # an old wheel runs models, but cannot write one
                shown = False
        cut = None if part is None else runtime.open_session(part.path, options=options)
        predictions: list[Prediction] = []
        outputs: list[TensorDigests] = []
        inside: list[TensorDigests] = []
        for _, tensor, geometry in iter_tensors(sample.samples, specs.input):
            made = session.infer(tensor)
            outputs.append(TensorDigests.of(tensor, made))
            predictions.append(
                decode_outputs(made, head=specs.head, spec=specs.input, geometry=geometry, post=post)
            )
            if cut is not None:  # the same model with other outputs, so it takes the same tensor
                inside.append(TensorDigests.of(tensor, cut.infer(tensor)))
        integers = None
        if part is not None:
            model = replace(file_model(part.path, runtime.name), options=subject.options)
            integers = _Integers(model, tuple(inside), part.begins)
        return cls(tuple(predictions), tuple(outputs), integers, shown)


@dataclass(frozen=True)
class HostSide:
    """What is computed here once for all devices."""

    reference: Evaluation | None
    """Of the float model."""
    sample: Dataset
    """The images of the parity check."""
    run: HostRun | None
    """None: the artifact's runtime is not here."""

    @classmethod
    def of(
        cls, subject: Subject, dataset: Dataset, post: PostProcess, console: Console, *, folder: Path
    ) -> HostSide:
        """Float metrics on all images, the artifact on a few.

        Args:
            subject: what is judged.
            dataset: the images.
            post: post-processing.
            console: shows the progress.
            folder: temporary; what is sent for the parity check stays there.
        """
        options = replace(subject.options, threads=core_count())
        float_eval, run = None, None
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
            run = HostRun.of(subject, sample, post, folder)
        return cls(float_eval, sample, run)


@dataclass(frozen=True)
class DeviceAccuracy:
    """Accuracy measured on a device."""

    accuracy: Accuracy
    parity: Parity | None
    """Detections or class scores, device against host; None: the runtime is not on this machine."""
    tensors: TensorParity | None
    """The steps before them."""
    behind_int8: Parity | None
    """Of the images on which INT8 ends equal: what the float layers behind it make of that; None: of none."""
    native: Parity
    """The device with its own image library's resizing against the device with everybody's."""
    device: dict[str, Any]
    machine: dict[str, Any]
    line: str

    def to_json(self) -> dict[str, Any]:
        """The report ``accuracy``, with the device and the parity."""
        told = None
        if self.parity is not None and self.tensors is not None:
            behind = None if self.behind_int8 is None else self.behind_int8.to_json()
            told = {**self.parity.to_json(), "tensors": self.tensors.to_json(), "behind_int8": behind}
        return {
            **self.accuracy.to_json(),
            "device": self.device,
            "machine": self.machine,
            "parity": told,
            "native_resize_parity": self.native.to_json(),
            "parity_summary": self.parity_summary,
        }

    @property
    def parity_summary(self) -> list[str]:
        """How far the device computes what this machine computes, in words."""
        if self.parity is None or self.tensors is None:
            found = ["parity not checked: the runtime is not on this machine"]
        else:
            found = [self.parity.sentence(), self.tensors.sentence()]
            behind = self.behind_int8
            if behind is not None and not behind.identical and behind.image_count < self.parity.image_count:
                found.append(
                    f"on the {behind.image_count} images with equal INT8 tensors: {behind.difference()}"
                )
        if not self.native.identical:
            found.append(f"the device's own image library resizes otherwise; {self.native.difference()}")
        return found

    def tables(self, **options: Any) -> list[RenderableType]:
        """For the terminal."""
        return [self.line, *self.parity_summary, *self.accuracy.tables(**options)]


def accuracy_on(
    side: DeviceSide, subject: Subject, dataset: Dataset, host: HostSide, post: PostProcess, console: Console
) -> DeviceAccuracy:
    """Metrics of the artifact on the device: parity on a few images first, then all of them.

    Raises:
        DeviceError: the device refuses, or does not answer as a device does.
    """
    specs, threads = subject.known, side.facts.machine.cores
    predictor = Predictor(side.worker, model_of(subject), specs.input, specs.head, post, threads=threads)
    few = image_files([sample.path for sample in host.sample.samples])
    with console.progress() as progress:
        alike = predictor.predict(few, progress=progress)
        # Before the many: they may take hours.
        console.warn_of_session(side.entry.name, predictor.details)
        native = replace(predictor, native_pixels=True, answered={}).predict(few, progress=progress)
        same = tensors = behind = None
        if host.run is not None:
            same = parity(host.run.predictions, alike)
            tensors = _tensors_on(side, subject, host.run, few)
            if where := tensors.equal_int8_images:
                behind = parity([host.run.predictions[i] for i in where], [alike[i] for i in where])
            if not same.good:
                console.warn(
                    f"{side.entry.name} does not compute what this machine computes: {same.sentence()}; "
                    f"{tensors.sentence()}"
                )
        images = image_files([sample.path for sample in dataset.samples])
        predictions = predictor.predict(images, progress=progress)
    int8 = evaluation_of(predictions, dataset, head=specs.head, post=post, session_details=predictor.details)
    accuracy = accuracy_of(subject, host.reference, int8)
    return DeviceAccuracy(
        accuracy, same, tensors, behind, parity(alike, native), side.to_json(), side.machine, side.line()
    )


def _tensors_on(
    side: DeviceSide, subject: Subject, run: HostRun, images: Sequence[ImageFile]
) -> TensorParity:
    def there(model: DeviceModel) -> tuple[TensorDigests, ...]:
        threads = side.facts.machine.cores
        return digests_on(side.worker, model, subject.known.input, images, threads=threads)

    outputs = (run.outputs, there(model_of(subject)))
    if run.integers is None:
        return tensor_parity(outputs, None, shown=run.shown)
    integers = (run.integers.digests, there(run.integers.model))
    return tensor_parity(outputs, integers, begins=run.integers.begins, shown=True)
