"""Predictions made on a device: each image is sent once, and answered once though the line drops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.data.images import file_digest, image_size
from edgeq.device.answers import InferResult, parse
from edgeq.device.client import Device, Upload
from edgeq.device.errors import DeviceError
from edgeq.device.models import DeviceModel
from edgeq.device.results import prediction
from edgeq.device.worker import Worker
from edgeq.report.jsonio import to_jsonable
from edgeq.types import HeadSpec, InputSpec, PostProcess, Prediction

__all__ = ["ImageFile", "Predictor", "image_files"]

_BATCH = 64
"""Images named in one request."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImageFile:
    """An image on this machine."""

    upload: Upload
    size_px: tuple[int, int]
    """Width and height."""


def image_files(paths: Sequence[Path]) -> tuple[ImageFile, ...]:
    """The images with their hashes and sizes.

    Raises:
        DataError: one cannot be read.
    """
    return tuple(
        ImageFile(Upload(path, file_digest(path), path.stat().st_size), image_size(path)) for path in paths
    )


@dataclass
class Predictor:
    """A model on a device, and what it has answered so far: the one thing here that grows."""

    worker: Worker
    model: DeviceModel
    spec: InputSpec
    head: HeadSpec
    post: PostProcess
    threads: int
    affinity: tuple[int, ...] = ()
    native_pixels: bool = False
    """Resize as the device's own image library does, else as every machine can."""
    answered: dict[str, Prediction] = field(default_factory=dict)
    """By the image's SHA-256."""
    details: dict[str, str] = field(default_factory=dict)
    """What ran; known after the first images."""

    def predict(self, images: Sequence[ImageFile], *, progress: Progress | None = None) -> list[Prediction]:
        """Predictions in the images' order; those that were answered before are not run again.

        Raises:
            DeviceError: the device refuses, or does not answer as a device does.
        """

        def go_on(device: Device) -> None:
            number = self.model.bring(device)
            while left := self._left(images):
                self._run(device, number, left[:_BATCH], images, progress)

        self.worker.do(go_on, progress=lambda: len(self.answered))
        return [self.answered[image.upload.sha256] for image in images]

    def _left(self, images: Sequence[ImageFile]) -> list[ImageFile]:
        unique = {image.upload.sha256: image for image in images}
        return [image for sha256, image in unique.items() if sha256 not in self.answered]

    def _run(
        self,
        device: Device,
        number: int,
        batch: Sequence[ImageFile],
        images: Sequence[ImageFile],
        progress: Progress | None,
    ) -> None:
        device.upload([image.upload for image in batch])
        sizes = {image.upload.sha256: image.size_px for image in batch}
        total = len({image.upload.sha256 for image in images})

        def take(what: str, data: Any) -> None:
            if what != "prediction":
                return
            name = data.get("image") if isinstance(data, dict) else None
            image, found = prediction(data, self.head, self.post, sizes.get(str(name)), device.name)
            if image not in sizes:
                raise DeviceError(f"{device.name}: a prediction for an image that was not asked for")
            self.answered[image] = found
            if progress is not None:
                progress("predict on the device", min(len(self.answered), total), total)

        request = {
            "model": number,
            "images": list(sizes),
            "input": to_jsonable(self.spec),
            "head": to_jsonable(self.head),
            "post": to_jsonable(self.post),
            "threads": self.threads,
            "affinity": list(self.affinity),
            "native_pixels": self.native_pixels,
        }
        result = parse(InferResult, device.request("infer", request, on_part=take), device.name)
        self.details = dict(result.details)
        missing = [sha256 for sha256 in sizes if sha256 not in self.answered]
        if missing:
            raise DeviceError(
                f"{device.name}: says that it is done, but {len(missing)} images have no answer"
            )
