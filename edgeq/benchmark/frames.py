"""What is fed to a model that is timed: prepared inputs, and the steps of a whole frame.

OpenCV or Pillow is imported only where an image is read or resized.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.benchmark.stages import Stage
from edgeq.runtimes.base import Session
from edgeq.types import HeadSpec, InputSpec, PostProcess, UInt8Array

__all__ = ["DEPLOYED", "frame_stages", "noise_input", "synthetic_image"]

_SYNTHETIC_PX = (480, 640)
_PATCH_PX = 20
DEPLOYED = PostProcess(confidence=0.25, multi_label=False, max_detections=100)
"""What a program on a device uses; the metric's 0.001 lets thousands of boxes into NMS."""


def synthetic_image() -> UInt8Array:
    """uint8 (480, 640, 3): smooth patches, as photographs have."""
    height, width = (side // _PATCH_PX for side in _SYNTHETIC_PX)
    coarse = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.repeat(np.repeat(coarse, _PATCH_PX, axis=0), _PATCH_PX, axis=1))


def noise_input(session: Session) -> npt.NDArray[Any]:
    """Noise of the first input's shape; unknown sizes count as 1."""
    info = session.inputs[0]
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in info.shape]
    return np.random.default_rng(0).random(shape).astype(np.dtype(info.dtype))


def frame_stages(
    session: Session, spec: InputSpec, head: HeadSpec, *, decode: Callable[[Any], UInt8Array] | None
) -> list[Stage]:
    """Decode, pre-process, infer and post-process, as a program on the device does.

    Args:
        session: the loaded model.
        spec: what it wants to see.
        head: how to read it.
        decode: from an item to its pixels; None: the items are pixels.
    """
    from edgeq.data.preprocess import preprocess
    from edgeq.model.decode import decode_outputs

    def post_process(made: tuple[Any, Any]) -> object:
        outputs, geometry = made
        return decode_outputs(outputs, head=head, spec=spec, geometry=geometry, post=DEPLOYED)

    stages = [
        Stage("pre-process", lambda image: preprocess(image, spec, native=True)),
        Stage("inference", lambda made: (session.infer(made[0]), made[1])),
        Stage("post-process", post_process),
    ]
    return stages if decode is None else [Stage("decode", decode), *stages]
