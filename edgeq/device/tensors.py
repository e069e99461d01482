"""Is each step on the way to a prediction the same on the device: pixels, INT8 tensors, outputs, to the bit.

Detections that differ say nothing of where that began. Digests of the model's input, of the tensors where its
INT8 part ends and of its outputs do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy.typing as npt

from edgeq.device.agent.digests import array_digest
from edgeq.device.answers import ImageDigests, parse
from edgeq.device.client import Device
from edgeq.device.errors import DeviceError
from edgeq.device.models import DeviceModel
from edgeq.device.predictions import ImageFile
from edgeq.device.worker import Worker
from edgeq.report.jsonio import to_jsonable
from edgeq.types import InputSpec

__all__ = ["TensorDigests", "TensorParity", "digests_on", "tensor_parity"]


@dataclass(frozen=True)
class TensorDigests:
    """Of one image: what the model took and what it gave, each as a SHA-256."""

    input: str
    outputs: Mapping[str, str]
    """By name, in the model's order."""

    @classmethod
    def of(cls, tensor: npt.NDArray[Any], outputs: Mapping[str, npt.NDArray[Any]]) -> TensorDigests:
        """Of an input tensor and what came of it."""
        return cls(array_digest(tensor), {name: array_digest(array) for name, array in outputs.items()})


@dataclass(frozen=True)
class TensorParity:
    """On how many images each step is the host's, to the bit."""

    image_count: int
    equal_pixels_count: int
    """The model's input: images decoded, resized and normalised alike."""
    equal_outputs_count: int
    int8_tensor_count: int | None
    """Tensors where the INT8 part ends; 0: there is none; None: the runtime does not show them."""
    equal_int8_images: tuple[int, ...] = ()
    """Positions of the images on which all of these are equal."""
    int8_part_equal: bool | None = None
    """Whether INT8 layers give the same wherever they read the same; None: there are none, or none shown."""
    first_different: str | None = None
    """In the order of the model, the first tensor between float and INT8 that differs on some image."""
    first_is_rounded_float: bool = False
    """Whether that is one which float layers are rounded to."""

    @property
    def arises_in(self) -> str | None:
        """Where the first difference is, in words; None: the outputs are equal."""
        if self.equal_pixels_count < self.image_count:
            return "the images: they are decoded otherwise there"
        if self.first_different is not None and self.first_is_rounded_float:
            return f"float layers ahead of INT8 ones, first seen where rounded to {self.first_different}"
        if self.first_different is not None:
            return f"the INT8 part, first seen in {self.first_different}"
        if self.equal_outputs_count == self.image_count:
            return None
        if self.int8_tensor_count:
            return "the float layers behind the INT8 part"
        return "the float layers" if self.int8_tensor_count == 0 else "the model's layers"

    def sentence(self) -> str:
        """For people."""
        count = self.image_count
        words = [f"pixels equal on {self.equal_pixels_count} of {count} images"]
        if self.int8_tensor_count:
            many = f"the {self.int8_tensor_count} tensors where INT8 ends equal to the bit"
            words.append(f"{many} on {len(self.equal_int8_images)} of {count}")
            if self.int8_part_equal and len(self.equal_int8_images) != count:
                words.append("the INT8 part itself equal wherever what it reads is")
        elif self.int8_tensor_count is None:
            words.append("INT8 tensors not compared: the runtime does not show them")
        words.append(f"outputs equal to the bit on {self.equal_outputs_count} of {count}")
        text = ", ".join(words)
        return text if self.arises_in is None else f"{text}; what differs arises in {self.arises_in}"

    def to_json(self) -> dict[str, Any]:
        """Plain data with the report's names."""
        return {
            **asdict(self),
            "equal_int8_count": None if not self.int8_tensor_count else len(self.equal_int8_images),
            "arises_in": self.arises_in,
        }


_Pair = tuple[Sequence[TensorDigests], Sequence[TensorDigests]]
"""Of the host and of the device."""


def tensor_parity(
    outputs: _Pair, integers: _Pair | None, *, begins: Collection[str] = (), shown: bool
) -> TensorParity:
    """The comparison of digests of the same images in the same order, host first.

    Args:
        outputs: of the artifact.
        integers: of the artifact cut where INT8 begins and ends; None: there is no such thing.
        begins: outputs of that one which float layers are rounded to.
        shown: whether the runtime shows where INT8 ends; then no ``integers`` means that nothing is INT8.
    """
    here, there = outputs
    pixels = sum(mine.input == theirs.input for mine, theirs in zip(here, there, strict=True))
    same = sum(mine.outputs == theirs.outputs for mine, theirs in zip(here, there, strict=True))
    told = TensorParity(len(here), pixels, same, 0 if shown else None)
    if integers is None:
        return told
    names = list(integers[0][0].outputs) if integers[0] else []
    differing = [
        [name for name in names if mine.outputs[name] != theirs.outputs.get(name)]
        for mine, theirs in zip(*integers, strict=True)
    ]
    first = next((name for name in names if any(name in entry for entry in differing)), None)
    ends = set(names) - set(begins)
    return replace(
        told,
        int8_tensor_count=len(ends),
        equal_int8_images=tuple(i for i, entry in enumerate(differing) if not ends.intersection(entry)),
        # Names are in the order of the model: what differs first was read by no INT8 layer before it.
        int8_part_equal=all(entry[0] in begins for entry in differing if entry),
        first_different=first,
        first_is_rounded_float=first in begins,
    )


def digests_on(
    worker: Worker, model: DeviceModel, spec: InputSpec, images: Sequence[ImageFile], *, threads: int
) -> tuple[TensorDigests, ...]:
    """Of images on a device, in their order.

    Raises:
        DeviceError: the device refuses, or does not answer as a device does.
    """
    wanted = [image.upload.sha256 for image in images]

    def run(device: Device) -> dict[str, TensorDigests]:
        found: dict[str, TensorDigests] = {}

        def take(what: str, data: Any) -> None:
            if what == "digests":
                entry = parse(ImageDigests, data, device.name)
                found[entry.image] = TensorDigests(entry.input, entry.outputs)

        number = model.bring(device)
        device.upload([image.upload for image in images])
        request = {
            "model": number,
            "images": list(dict.fromkeys(wanted)),
            "input": to_jsonable(spec),
            "threads": threads,
        }
        device.request("digests", request, on_part=take)
        if set(found) != set(wanted):
            raise DeviceError(f"{device.name}: {len(set(wanted) - set(found))} images have no digests")
        return found

    found = worker.do(run)
    return tuple(found[sha256] for sha256 in wanted)
