"""Images through the bundle's whole path on the device: detections or class scores for the host to score."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeq.data.images import decode_image
from edgeq.data.preprocess import Geometry, preprocess
from edgeq.device.agent.models import Model
from edgeq.device.agent.specs import head_spec, input_spec, post_process
from edgeq.device.agent.store import Store
from edgeq.device.agent.streams import Answer
from edgeq.device.agent.wire import text_of_array
from edgeq.model.decode import decode_outputs
from edgeq.model.fitting import fit_specs
from edgeq.types import Detections, Float32Array, InputSpec

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
    images = [str(sha256) for sha256 in request["images"]]
    native = bool(request["native_pixels"])
    for sha256, tensor, geometry in _tensors(images, spec, store, native):
        start_ns = time.perf_counter_ns()
        outputs = session.infer(tensor)
        took_ns = time.perf_counter_ns() - start_ns
        data: dict[str, Any] = {"image": sha256, "infer_ns": took_ns}
        found = decode_outputs(outputs, head=head, spec=spec, geometry=geometry, post=post)
        if not isinstance(found, Detections):
            data["scores"] = text_of_array(found)
        else:
            data["boxes"] = text_of_array(found.boxes_xyxy)
            data["scores"] = text_of_array(found.scores)
            data["class_ids"] = found.class_ids.tolist()
        answer.part("prediction", data)
    return {"details": dict(session.details)}


def _tensors(
    images: Sequence[str], spec: InputSpec, store: Store, native: bool
) -> Iterator[tuple[str, Float32Array, Geometry]]:
    """Each image's tensor, the next one being made while the runtime works."""

    def load(sha256: str) -> tuple[str, Float32Array, Geometry]:
        image = decode_image(store.read(sha256), name=sha256[:12])
        tensor, geometry = preprocess(image, spec, native=native)
        return sha256, tensor, geometry

    with ThreadPoolExecutor(1, thread_name_prefix="edgeq-images") as pool:
        waiting = pool.submit(load, images[0]) if images else None
        for following in [*images[1:], None]:
            if waiting is None:
                return
            loaded = waiting.result()
            waiting = None if following is None else pool.submit(load, following)
            yield loaded
