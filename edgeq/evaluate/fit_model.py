"""A float model as the check of its pre-processing sees it, and what the check may find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgeq.data.stream import iter_tensors
from edgeq.machine import core_count
from edgeq.model.decode import BoxMapping, decode_outputs
from edgeq.types import Float32Array, HeadSpec, InputSpec, PostProcess, Prediction, Sample

__all__ = ["FitFinding", "FitModel", "Image", "Infer", "Severity", "logits", "side_by_side"]

Infer = Callable[[Float32Array], Mapping[str, npt.NDArray[Any]]]
Image = tuple[Sample, Float32Array, BoxMapping]
_Result = TypeVar("_Result")


class Severity(str, Enum):
    """How much a finding weighs."""

    ERROR = "error"
    """Calibrating like this gives a bad model."""
    NOTE = "note"


@dataclass(frozen=True)
class FitFinding:
    """One thing that was noticed about the pre-processing."""

    severity: Severity
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class FitModel:
    """What it takes to turn a tensor into a prediction."""

    infer: Infer
    spec: InputSpec
    head: HeadSpec
    post: PostProcess
    known: dict[str, Mapping[str, npt.NDArray[Any]]] = field(default_factory=dict)
    """Outputs for images as they are, by the sample's key."""

    def predict_kept(self, image: Image, geometry: BoxMapping) -> Prediction:
        """Decoded outputs for an image as it is; they are :attr:`known` from then on."""
        sample, tensor, _ = image
        if sample.key not in self.known:
            self.known[sample.key] = self._outputs(tensor)
        return self._decoded(self.known[sample.key], geometry)

    def predict(self, tensor: Float32Array, geometry: BoxMapping) -> Prediction:
        """Decoded outputs for one input tensor."""
        return self._decoded(self._outputs(tensor), geometry)

    def _outputs(self, tensor: Float32Array) -> Mapping[str, npt.NDArray[Any]]:
        return self.infer(np.ascontiguousarray(tensor, dtype=np.float32))

    def _decoded(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: BoxMapping) -> Prediction:
        return decode_outputs(outputs, head=self.head, spec=self.spec, geometry=geometry, post=self.post)


def side_by_side(
    function: Callable[[Image], _Result], samples: Sequence[Sample], spec: InputSpec
) -> list[_Result]:
    """The function of every image, one thread a core."""
    with ThreadPoolExecutor(max_workers=core_count()) as pool:
        return list(pool.map(function, iter_tensors(samples, spec)))


def logits(scores: Float32Array) -> npt.NDArray[np.float64]:
    """(n, nc) scores before softmax, whether the model ends with one or not."""
    wide = scores.astype(np.float64)
    if np.min(wide) >= 0 and np.allclose(wide.sum(axis=1), 1, atol=1e-3):
        wide = np.log(np.maximum(wide, 1e-12))
    return wide
