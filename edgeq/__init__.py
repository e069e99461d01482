"""edgeq: vision models to INT8 for edge devices, measured and gated."""

from __future__ import annotations

__version__ = "0.1.0"
