"""An input of image type, so that a camera's frames fit: which input specs allow it, and its numbers.

Core ML computes ``x = scale * pixel + bias`` with one scale for all channels and a bias for each; pixels
are 0..255. Source: coremltools, ``ImageType`` and its guide "Image Input and Output".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq.types import ColorOrder, InputSpec, Layout

__all__ = ["ImageInput", "image_input"]


@dataclass(frozen=True)
class ImageInput:
    """How pixels become the tensor."""

    color: ColorOrder
    scale: float
    bias: tuple[float, float, float]
    """In the model's own channel order."""

    def native(self, tools: Any, built: Any) -> Any:
        """coremltools' type of the input."""
        layout = tools.colorlayout.RGB if self.color is ColorOrder.RGB else tools.colorlayout.BGR
        shape = built.program.functions["main"].inputs[built.input].shape
        return tools.ImageType(
            name=built.input,
            shape=shape,
            scale=self.scale,
            bias=list(self.bias),
            color_layout=layout,
            channel_first=True,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for the package's metadata."""
        return {"color": self.color.value, "scale": self.scale, "bias": list(self.bias)}


def image_input(spec: InputSpec | None) -> ImageInput | None:
    """The image input that computes a spec's ``(pixel - mean) / std``; None: no single scale does."""
    if spec is None or spec.layout is not Layout.NCHW or len(set(spec.std)) != 1:
        return None
    scale = 1.0 / spec.std[0]
    red, green, blue = (0.0 - mean * scale for mean in spec.mean)
    return ImageInput(spec.color, scale, (red, green, blue))
