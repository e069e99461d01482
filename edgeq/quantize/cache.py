"""Statistics on disk under a hash of everything that they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

import edgeq
from edgeq.errors import EdgeqError
from edgeq.files import atomic_write
from edgeq.quantize.statistics import Statistics
from edgeq.types import InputSpec

__all__ = ["StatisticsCache", "default_cache_folder"]

_OBSERVER = 2
"""Counts up where the same images give other numbers than before, be it by rounding."""


def default_cache_folder() -> Path:
    """``$XDG_CACHE_HOME/edgeq`` or ``~/.cache/edgeq``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeq"


class StatisticsCache:
    """Statistics of lists of images, by content.

    The key covers the normalised model, the pre-processing, every image and the versions that
    compute. A damaged entry counts as missing.
    """

    def __init__(self, folder: Path | None, *, model_sha256: str, spec: InputSpec) -> None:
        """Open the cache.

        Args:
            folder: where it lies; None: nothing is kept.
            model_sha256: digest of the normalised float model.
            spec: the pre-processing.
        """
        self._folder = folder / "statistics" if folder is not None else None
        versions = [_OBSERVER, edgeq.__version__, np.__version__, cv2.__version__, ort.__version__]
        head = json.dumps([model_sha256, asdict(spec), versions], sort_keys=True)
        self._head = hashlib.sha256(head.encode()).hexdigest()

    def load(self, digests: Sequence[str]) -> Statistics | None:
        """Statistics of exactly these images in this order, or None."""
        path = self._path(digests)
        if path is None or not path.is_file():
            return None
        try:
            return Statistics.from_bytes(path.read_bytes())
        except (EdgeqError, OSError):
            return None

    def store(self, digests: Sequence[str], statistics: Statistics, *, compress: bool = True) -> None:
        """Keep them; a cache that cannot be written is no reason to stop."""
        path = self._path(digests)
        if path is None:
            return
        with contextlib.suppress(EdgeqError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, statistics.to_bytes(compress=compress))

    def drop(self, digests: Sequence[str]) -> None:
        """Forget an entry."""
        path = self._path(digests)
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _path(self, digests: Sequence[str]) -> Path | None:
        if self._folder is None:
            return None
        key = hashlib.sha256("\n".join([self._head, *digests]).encode()).hexdigest()
        return self._folder / f"{key[:40]}.npz"
