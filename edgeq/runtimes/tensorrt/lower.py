"""From QDQ model to artifact: TensorRT reads QDQ ONNX, so lowering is making sure that it will."""

from __future__ import annotations

from pathlib import Path

import onnx

from edgeq.errors import ModelError
from edgeq.files import atomic_write
from edgeq.runtimes.base import Artifact, LowerOptions
from edgeq.runtimes.tensorrt.findings import Severity
from edgeq.runtimes.tensorrt.lint import lint

__all__ = ["lower"]

_SHOWN = 3


def lower(model: bytes, folder: Path, options: LowerOptions) -> Artifact:
    """The model itself, as a file.

    Args:
        model: serialised QDQ or float model.
        folder: where the artifact goes; it must exist.
        options: its name; the others do not concern TensorRT, whose layers have the types of their tensors.

    Raises:
        ModelError: TensorRT would refuse it, with the nodes and what to do.
        OutputError: it cannot be written.
    """
    findings = lint(onnx.load_from_string(model))
    errors = [entry for entry in findings if entry.severity is Severity.ERROR]
    if errors:
        listed = "; ".join(f"{entry.node or 'the model'}: {entry.message}" for entry in errors[:_SHOWN])
        more = f" (and {len(errors) - _SHOWN} more)" if len(errors) > _SHOWN else ""
        raise ModelError(f"TensorRT will not take this model: {listed}{more}", fix=errors[0].fix)
    path = folder / f"{options.name}.qdq.onnx"
    atomic_write(path, model)
    return Artifact(path, (path,))
