"""Digests of what a model takes and gives on the device, for the host to hold against its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.data.images import decode_image
from edgeq.data.preprocess import preprocess
from edgeq.device.agent.models import Model
from edgeq.device.agent.specs import input_spec
from edgeq.device.agent.store import Store
from edgeq.device.agent.streams import Answer
from edgeq.model.fitting import fit_input

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["array_digest", "digests"]


def digests(request: Mapping[str, Any], model: Model, store: Store, answer: Answer) -> dict[str, Any]:
    """One ``part`` for each image, in order: digests of the input tensor and of each output.

    Raises:
        BlobLost: an image is not here any more.
        EdgeqError: an image cannot be read, or the model does not run.
    """
    session = model.open(int(request["threads"]))
    spec = fit_input(input_spec(request["input"]), session.inputs)
    for entry in request["images"]:
        sha256 = str(entry)
        tensor, _ = preprocess(decode_image(store.read(sha256), name=sha256[:12]), spec)
        outputs = {name: array_digest(array) for name, array in session.infer(tensor).items()}
        answer.part("digests", {"image": sha256, "input": array_digest(tensor), "outputs": outputs})
    return {}


def array_digest(array: npt.NDArray[Any]) -> str:
    """SHA-256 of type, shape and numbers, in hex."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()
