"""edgeq: vision models to INT8 for edge devices, measured and gated.

The Python API is in :mod:`edgeq.api`; the verbs of the vocabulary are also the names of the packages here.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
