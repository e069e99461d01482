"""What every record says of a TensorRT session, by the module or by ``trtexec``. Device side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.tensorrt.cache import Device

__all__ = ["Details"]

_MOST_TIMES = 100_000


class Details:
    """What ran and where; after inferences also the GPU's own time of the last ones."""

    def __init__(self, version: str, device: Device, options: SessionOptions, *, cached: bool) -> None:
        dla = options.dla_core
        self._known = {
            "runtime": "tensorrt",
            "version": version,
            "device": device.name,
            "compute_capability": device.compute_capability,
            "unit": "GPU" if dla is None else f"DLA core {dla}, the GPU for the rest",
            "float_precision": "tf32" if options.default_float else "float32",
            "threads": str(options.threads),
            "engine": "cached" if cached else "built now",
        }
        self._gpu_ms: deque[float] = deque(maxlen=_MOST_TIMES)

    @property
    def gpu_times_ms(self) -> tuple[float, ...]:
        """Of the last inferences: the engine alone, without the copies."""
        return tuple(self._gpu_ms)

    def add_times(self, times_ms: Iterable[float]) -> None:
        """Of one inference, or of several."""
        self._gpu_ms.extend(times_ms)

    def with_times(self, **more: str) -> Mapping[str, str]:
        """As `edgeq.runtimes.base.Session.details`, with what a session adds of its own."""
        known = {**self._known, **more}
        if not self._gpu_ms:
            return known
        median = f"{float(np.median(self._gpu_ms)):.4f}"
        return {**known, "gpu_median_ms": median, "gpu_runs": str(len(self._gpu_ms))}
