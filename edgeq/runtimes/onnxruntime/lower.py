"""From QDQ model to artifact: ONNX Runtime loads QDQ ONNX and fuses it itself."""

from __future__ import annotations

from pathlib import Path

from edgeq.files import atomic_write

__all__ = ["ARTIFACT_NAME", "lower"]

ARTIFACT_NAME = "model.qdq.onnx"


def lower(qdq: bytes, folder: Path) -> Path:
    """Path of the artifact.

    Args:
        qdq: serialised QDQ model.
        folder: where the artifact goes; it must exist.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / ARTIFACT_NAME
    atomic_write(path, qdq)
    return path
