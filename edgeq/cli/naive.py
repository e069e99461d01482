"""What a user gets elsewhere: ONNX Runtime's own static quantiser at its defaults, to compare with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.data.stream import iter_tensors
from edgeq.types import InputSpec, Sample

__all__ = ["quantize_naively"]


def quantize_naively(source: Path, target: Path, samples: Sequence[Sample], spec: InputSpec) -> None:
    """Quantise with ``onnxruntime.quantization.quantize_static``: every choice is its default.

    Args:
        source: float ONNX model.
        target: where the INT8 model goes.
        samples: calibration images.
        spec: the model's input.
    """
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The images as the quantiser asks for them."""

        def __init__(self) -> None:
            self._tensors = iter_tensors(samples, spec)

        def get_next(self) -> dict[str, Any] | None:
            """The next input, or None after the last."""
            found = next(self._tensors, None)
            return None if found is None else {spec.name: found[1]}

    # It warns through the root logger that pre-processing is recommended.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_static(str(source), str(target), Reader())
    finally:
        root.setLevel(level)
