"""From QDQ model to artifact: ONNX Runtime loads QDQ ONNX and fuses it itself."""

from __future__ import annotations

from pathlib import Path

from edgeq.files import atomic_write
from edgeq.runtimes.base import Artifact, LowerOptions

__all__ = ["lower"]


def lower(model: bytes, folder: Path, options: LowerOptions) -> Artifact:
    """The model itself, as a file.

    Args:
        model: serialised QDQ model.
        folder: where the artifact goes; it must exist.
        options: its name; the others do not concern ONNX Runtime.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / f"{options.name}.qdq.onnx"
    atomic_write(path, model)
    return Artifact(path, (path,))
