"""What the linter finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Severity"]


class Severity(str, Enum):
    """What comes of a finding."""

    ERROR = "error"
    """TensorRT refuses the model, or computes something else than ONNX says."""
    SILENT_FLOAT = "silent-float"
    """TensorRT builds an engine without a word, and the layer runs in float."""
    NOTE = "note"
    """It works; it may be slower, or not on every version."""


@dataclass(frozen=True)
class Finding:
    """One broken rule at one node."""

    rule: str
    """``zero-point``, ``weight-axis``, ..."""
    severity: Severity
    node: str
    """Name of the ONNX node; empty: the model as a whole."""
    message: str
    fix: str
