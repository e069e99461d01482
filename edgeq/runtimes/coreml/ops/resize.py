"""Resize: MIL's upsampling ops are chosen by comparing where each output pixel reads from.

Source of MIL's coordinates: coremltools 9, ``mil/ops/defs/iOS15/image_resizing.py``; of ONNX's: the
operator's specification.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.source import Node, refuse

__all__ = ["resize"]

Coordinates = npt.NDArray[np.float64]
_ROUNDINGS: dict[str, Callable[[Coordinates], Coordinates]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}
_FLAGS = {
    "half_pixel": (False, True), "pytorch_half_pixel": (False, True), "align_corners": (True, False),
    "asymmetric": (False, False),
}  # fmt: skip
"""ONNX's coordinates -> (align corners, half pixel centres)."""


def resize(emit: Emitter, node: Node) -> None:
    """upsample_nearest_neighbor or upsample_bilinear; nearest in any other way is a gather per axis.

    Raises:
        ModelError: cubic, a smaller result that is interpolated, or more than height and width.
    """
    shape = emit.shape(node.inputs[0])
    result = emit.source.shapes.get(node.outputs[0])
    if result is None or len(shape) != 4 or shape[:2] != result[:2]:
        raise refuse(node, f"it resizes {shape} to {result}", "Core ML resizes height and width only")
    mode = _text(node.get("mode", "nearest"))
    if mode == "nearest":
        _nearest(emit, node, shape, result)
    elif mode == "linear" and not node.get("antialias", 0):
        _bilinear(emit, node, shape, result)
    else:
        raise refuse(node, f"mode {mode}", "export it with nearest or bilinear interpolation")


def _nearest(emit: Emitter, node: Node, shape: tuple[int, ...], result: tuple[int, ...]) -> None:
    rounding = _ROUNDINGS[_text(node.get("nearest_mode", "round_prefer_floor"))]
    wanted = [
        np.clip(rounding(_coordinates(emit, node, shape, result, axis)), 0, shape[axis] - 1).astype(np.int32)
        for axis in (2, 3)
    ]
    factors = [result[axis] // shape[axis] for axis in (2, 3)]
    whole = all(shape[axis] * factors[axis - 2] == result[axis] for axis in (2, 3))
    if whole and all(
        np.array_equal(reads, np.arange(len(reads)) // factor)
        for reads, factor in zip(wanted, factors, strict=True)
    ):
        emit.write(
            node, "upsample_nearest_neighbor", x=emit.input(node, 0),
            scale_factor_height=np.float32(factors[0]), scale_factor_width=np.float32(factors[1]),
        )  # fmt: skip
        return
    rows = emit.op(
        "gather", x=emit.input(node, 0), indices=wanted[0], axis=np.int32(2),
        validate_indices=False,
    )  # fmt: skip
    emit.write(node, "gather", x=rows, indices=wanted[1], axis=np.int32(3), validate_indices=False)


def _coordinates(
    emit: Emitter, node: Node, shape: tuple[int, ...], result: tuple[int, ...], axis: int
) -> Coordinates:
    """Positions in the input, along one axis, of the pixels of the output."""
    size, count = shape[axis], result[axis]
    scales = emit.constant(node, 2)
    given = scales is not None and scales.size == len(shape)
    scale = float(scales[axis]) if given and scales is not None else count / size
    kind = _text(node.get("coordinate_transformation_mode", "half_pixel"))
    x = np.arange(count, dtype=np.float64)
    if kind == "align_corners":
        return x * ((size - 1) / (count - 1)) if count > 1 else x * 0
    if kind == "asymmetric":
        return x / scale
    if kind in ("half_pixel", "pytorch_half_pixel"):
        return (x + 0.5) / scale - 0.5 if count > 1 or kind == "half_pixel" else x * 0
    raise refuse(node, f"coordinates {kind}", "export it with half_pixel, asymmetric or align_corners")


def _bilinear(emit: Emitter, node: Node, shape: tuple[int, ...], result: tuple[int, ...]) -> None:
    kind = _text(node.get("coordinate_transformation_mode", "half_pixel"))
    if kind not in _FLAGS or any(result[axis] % shape[axis] for axis in (2, 3)):
        raise refuse(
            node, f"it interpolates {shape} to {result} with {kind} coordinates",
            "Core ML interpolates by whole factors with half_pixel, asymmetric or align_corners",
        )  # fmt: skip
    align, half = _FLAGS[kind]
    emit.write(
        node, "upsample_bilinear", x=emit.input(node, 0),
        scale_factor_height=np.float32(result[2] // shape[2]),
        scale_factor_width=np.float32(result[3] // shape[3]),
        align_corners=align, half_pixel_centers=None if align else half,
    )  # fmt: skip


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
