"""Where the time of a model goes on the device, layer by layer, where its runtime tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.device.agent.bench import image_feed
from edgeq.device.agent.models import Model
from edgeq.device.agent.specs import input_spec
from edgeq.device.agent.store import Store
from edgeq.device.agent.streams import Answer
from edgeq.errors import InputError
from edgeq.runtimes.optional import ProfiledSession

__all__ = ["profile"]

_CHUNK = 200


def profile(request: Mapping[str, Any], model: Model, store: Store, answer: Answer) -> dict[str, Any]:
    """The executed layers in parts, in order.

    Raises:
        InputError: the runtime does not tell.
        ModelError: the model does not load or run.
        BlobLost: an image is not here any more.
    """
    session = model.open(int(request["threads"]))
    if not isinstance(session, ProfiledSession):
        raise InputError(
            f"the runtime {model.runtime.name} tells no times of layers", fix="leave --per-layer out"
        )
    spec = request.get("input")
    feed = image_feed(request, store, most=1)
    tensor = feed.inputs(session, None if spec is None else input_spec(spec))[0]
    layers = [
        {
            "name": layer.name[:500],
            "op": layer.op[:100],
            "precision": layer.precision[:100],
            "kernel": layer.kernel[:200],
            "time_ms": layer.time_ms,
        }
        for layer in session.profile(tensor, runs=int(request["runs"]))
    ]
    for start in range(0, len(layers), _CHUNK):
        answer.part("times", {"layers": layers[start : start + _CHUNK]})
    return {}
