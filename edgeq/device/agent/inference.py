"""Images through the bundle's whole path on the device: detections or class scores for the host to score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.data.images import decode_image
from edgeq.data.preprocess import Geometry, preprocess
from edgeq.data.stream import read_ahead
from edgeq.device.agent.models import Model
from edgeq.device.agent.specs import head_spec, input_spec, post_process
from edgeq.device.agent.store import Store
from edgeq.device.agent.streams import Answer
from edgeq.device.agent.wire import text_of_array
from edgeq.model.decode import decode_outputs
from edgeq.model.fitting import fit_specs
from edgeq.types import Detections, Float32Array

__all__ = ["infer"]


def infer(request: Mapping[str, Any], model: Model, store: Store, answer: Answer) -> dict[str, Any]:
    """One ``part`` for each image, in order; the result tells what ran.

    Raises:
        BlobLost: an image is not here any more.
        EdgeqError: an image cannot be read, the model does not run, or the outputs do not fit the head.
    """
    spec, head = input_spec(request["input"]), head_spec(request["head"])
    post = post_process(request["post"])
    session = model.open(int(request["threads"]))
    spec, head = fit_specs(spec, head, session.inputs, session.outputs)
    native = bool(request["native_pixels"])

    def load(sha256: str) -> tuple[str, Float32Array, Geometry]:
        image = decode_image(store.read(sha256), name=sha256[:12])
        tensor, geometry = preprocess(image, spec, native=native)
        return sha256, tensor, geometry

    for sha256, tensor, geometry in read_ahead(map(str, request["images"]), load):
        found = decode_outputs(session.infer(tensor), head=head, spec=spec, geometry=geometry, post=post)
        data: dict[str, Any] = {"image": sha256}
        if isinstance(found, Detections):
            data["boxes"] = text_of_array(found.boxes_xyxy)
            data["scores"] = text_of_array(found.scores)
            data["class_ids"] = found.class_ids.tolist()
        else:
            data["scores"] = text_of_array(found)
        answer.part("prediction", data)
    return {"details": dict(session.details)}
