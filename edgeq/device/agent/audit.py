"""What really runs in which precision, as the runtime on the device tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.device.agent.models import Model
from edgeq.device.agent.streams import Answer

__all__ = ["audit"]

_CHUNK = 200


def audit(request: Mapping[str, Any], model: Model, answer: Answer) -> dict[str, Any]:
    """The layers in parts, then the details."""
    reasons = {str(name): str(reason) for name, reason in request["reasons"].items()}
    options = model.options(int(request["threads"]))
    report = model.runtime.audit(model.artifact, options=options, reasons=reasons)
    layers = [
        {
            "name": layer.name[:500],
            "op": layer.op[:100],
            "precision": layer.precision.value,
            "kernel": layer.kernel[:200],
            "reason": layer.reason[:1000],
        }
        for layer in report.layers
    ]
    for start in range(0, len(layers), _CHUNK):
        answer.part("layers", {"layers": layers[start : start + _CHUNK]})
    return {"runtime": report.runtime, "details": dict(report.details)}
