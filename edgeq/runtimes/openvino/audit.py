"""Which layers really run in INT8: the executed graph of OpenVINO, with the time of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.runtimes.base import AuditReport, LayerAudit, LayerPrecision, LayerTime, SessionOptions
from edgeq.runtimes.openvino.executed import COMPUTE, source_name
from edgeq.runtimes.openvino.session import OpenVinoSession, open_session

__all__ = ["audit"]

_RUNS = 3
_INTEGER = frozenset({"u8", "i8"})
_FLOAT = frozenset({"f32", "bf16", "f16"})
_MOVES = frozenset({"Reorder", "Reshape", "Transpose", "Concatenation", "Split", "Interpolate", "Pooling"})
"""They compute nothing: in float only because their input is."""
_CARRIERS = frozenset(
    {"Convert", "Subtract", "Multiply", "Reshape", "MaxPool", "Concat", "VariadicSplit", "Split"}
)
_FAKE = "FakeQuantize"


def audit(
    artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
) -> AuditReport:
    """Precision, kernel, time and, for layers in float, the reason.

    Args:
        artifact: the ``.xml``.
        options: as it will be run.
        reasons: node name -> why the plan keeps it in float.

    Raises:
        ModelError: the model does not load or run.
        UnavailableError: openvino is not installed.
    """
    session = open_session(artifact, options, counters=True)
    missing = _not_quantised(session)
    times = session.profile(_zeros(session), runs=_RUNS)
    layers = tuple(_layer(entry, reasons or {}, missing) for entry in times)
    return AuditReport("openvino", layers, dict(session.details))


def _zeros(session: OpenVinoSession) -> Any:
    info = session.inputs[0]
    return np.zeros([size if isinstance(size, int) else 1 for size in info.shape], info.dtype)


def _layer(entry: LayerTime, reasons: Mapping[str, str], missing: Mapping[str, str]) -> LayerAudit:
    if entry.precision in _INTEGER:
        precision = LayerPrecision.INT8
    elif entry.precision in _FLOAT and entry.op not in _MOVES:
        precision = LayerPrecision.FLOAT
    else:
        precision = LayerPrecision.OTHER
    reason = ""
    if precision is LayerPrecision.FLOAT and entry.op in COMPUTE.values():
        reason = reasons.get(entry.name) or missing.get(
            entry.name, "its input and weight are quantised, but OpenVINO has not used its integer kernel"
        )
    kernel = f"{entry.kernel} {entry.precision}".strip()
    return LayerAudit(entry.name, entry.op, precision, kernel, reason, entry.time_ms)


def _not_quantised(session: OpenVinoSession) -> dict[str, str]:
    """Layer name -> which of its inputs the model itself leaves in float."""
    found: dict[str, str] = {}
    for node in session.model.get_ops():
        kind = node.get_type_name()
        if "Convolution" not in kind and kind != "MatMul":
            continue
        inputs = [node.input_value(index).get_node() for index in (0, 1)]
        lacking = [
            what
            for what, made in zip(("input", "weight"), inputs)  # noqa: B905 (boards may have Python 3.9)
            if not _quantised(made)
        ]
        if lacking:
            verb = "is" if len(lacking) == 1 else "are"
            text = "not quantised in the model"
            name = source_name(node.get_friendly_name())
            found[name] = text if len(lacking) == 2 else f"its {lacking[0]} {verb} {text}"
    return found


def _quantised(node: Any) -> bool:
    """Whether a FakeQuantize or an integer constant makes a tensor, through ops that carry it on."""
    for _ in range(32):
        kind = node.get_type_name()
        if kind == _FAKE:
            return True
        if kind == "Constant":
            return str(node.get_output_element_type(0).get_type_name()) in _INTEGER
        if kind not in _CARRIERS or not node.get_input_size():
            return False
        node = node.input_value(0).get_node()
    return False
