"""What is fed to a model that is timed: prepared inputs, and the steps of a whole frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.benchmark.stages import Stage
from edgeq.data.preprocess import preprocess
from edgeq.data.select import evenly
from edgeq.model.decode import decode_outputs
from edgeq.model.fitting import fit_input
from edgeq.runtimes.base import Session
from edgeq.types import HeadSpec, InputSpec, PostProcess, UInt8Array

__all__ = ["MOST_IMAGES", "ImageFeed"]

_INPUT_IMAGES = 8
MOST_IMAGES = 32
"""More of them change no latency, and a device would have to be sent them."""
_SYNTHETIC_PX = (480, 640)
_PATCH_PX = 20
_DEPLOYED = PostProcess(confidence=0.25, multi_label=False, max_detections=100)
"""What a program on a device uses; the metric's 0.001 lets thousands of boxes into NMS."""


@dataclass(frozen=True)
class ImageFeed:
    """Images as a program meets them, not decoded yet; without any a made-up one stands in."""

    images: Sequence[Any]
    """Paths, or the bytes of files."""
    read: Callable[[Any], UInt8Array]
    """From one of them to its pixels, (height, width, 3), RGB."""

    def inputs(self, session: Session, spec: InputSpec | None) -> list[npt.NDArray[Any]]:
        """Prepared inputs of a few images; noise where the input spec is not known.

        Raises:
            DataError: an image cannot be read.
            SpecError: the session takes other inputs.
        """
        if spec is None:
            return [_noise(session)]
        fitted = fit_input(spec, session.inputs)
        pictures = [self.read(image) for image in evenly(self.images, _INPUT_IMAGES)] or [_made_up()]
        return [preprocess(picture, fitted)[0] for picture in pictures]

    def frames(self) -> list[Any]:
        """What the first of `stages` takes."""
        return evenly(self.images, MOST_IMAGES) or [_made_up()]

    def stages(self, session: Session, spec: InputSpec, head: HeadSpec) -> list[Stage]:
        """Decode (real images only), pre-process, infer and post-process, as a program on the device does.

        Args:
            session: the loaded model.
            spec: what it wants to see, in the session's own layout.
            head: how to read it, with the session's own names.
        """

        def post_process(made: tuple[Any, Any]) -> object:
            outputs, geometry = made
            return decode_outputs(outputs, head=head, spec=spec, geometry=geometry, post=_DEPLOYED)

        stages = [
            Stage("pre-process", lambda image: preprocess(image, spec, native=True)),
            Stage("inference", lambda made: (session.infer(made[0]), made[1])),
            Stage("post-process", post_process),
        ]
        return [Stage("decode", self.read), *stages] if self.images else stages


def _made_up() -> UInt8Array:
    """uint8 (480, 640, 3): smooth patches, as photographs have."""
    height, width = (side // _PATCH_PX for side in _SYNTHETIC_PX)
    coarse = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.repeat(np.repeat(coarse, _PATCH_PX, axis=0), _PATCH_PX, axis=1))


def _noise(session: Session) -> npt.NDArray[Any]:
    """Noise of the first input's shape; unknown sizes count as 1."""
    info = session.inputs[0]
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in info.shape]
    return np.random.default_rng(0).random(shape).astype(np.dtype(info.dtype))
