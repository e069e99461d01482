"""Resize: TFLite's flags are chosen by comparing where each output pixel reads from.

Source of TFLite's coordinates: ``tflite/kernels/internal/reference/resize_nearest_neighbor.h`` and
``resize_bilinear.h`` of google-ai-edge/LiteRT; of ONNX's: the operator's specification.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeq.runtimes.tflite.emit import Emitter
from edgeq.runtimes.tflite.graph import Node, refuse

__all__ = ["resize"]

Coordinates = npt.NDArray[np.float64]
_FLAGS = ((False, False), (False, True), (True, False))
"""(align corners, half pixel centres)"""
_TOLERANCE = 1e-4


def resize(emit: Emitter, node: Node) -> None:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR; nearest in any other way is a GATHER per axis.

    Raises:
        ModelError: cubic, or an interpolation that no setting of TFLite computes.
    """
    shape, result = emit.value(node.inputs[0]).shape, emit.graph.values[node.outputs[0]].shape
    if len(shape) != 4 or shape[:2] != result[:2]:
        raise refuse(node, f"it resizes {shape} to {result}", "TFLite resizes height and width only")
    mode = node.get("mode", "nearest")
    reads = [_onnx_coordinates(emit, node, axis) for axis in (2, 3)]
    if mode == "nearest":
        _nearest(emit, node, reads)
    elif mode == "linear" and not node.get("antialias", 0):
        _bilinear(emit, node, reads)
    else:
        raise refuse(node, f"mode {mode}", "export it with nearest or bilinear interpolation")


def _onnx_coordinates(emit: Emitter, node: Node, axis: int) -> Coordinates:
    """Positions in the input, along one axis, of the pixels of the output."""
    size = emit.value(node.inputs[0]).shape[axis]
    count = emit.graph.values[node.outputs[0]].shape[axis]
    scales = emit.graph.constant(node.input(2))
    scale = count / size
    if scales is not None and scales.size:
        axes = node.get("axes")
        where = list(axes).index(axis) if axes is not None else axis
        scale = float(scales[where])
    kind = node.get("coordinate_transformation_mode", "half_pixel")
    x = np.arange(count, dtype=np.float64)
    if kind == "align_corners":
        return x * ((size - 1) / (count - 1)) if count > 1 else x * 0
    if kind == "asymmetric":
        return x / scale
    if kind == "half_pixel" or (kind == "pytorch_half_pixel" and count > 1):
        return (x + 0.5) / scale - 0.5
    if kind == "pytorch_half_pixel":
        return x * 0
    if kind == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    raise refuse(node, f"coordinates {kind}", "export it with half_pixel, asymmetric or align_corners")


_ROUNDINGS: dict[str, Callable[[Coordinates], Coordinates]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _nearest(emit: Emitter, node: Node, reads: list[Coordinates]) -> None:
    rounding = _ROUNDINGS[node.get("nearest_mode", "round_prefer_floor")]
    sizes = emit.value(node.inputs[0]).shape[2:]
    wanted = [
        np.clip(rounding(x), 0, size - 1).astype(np.int64) for x, size in zip(reads, sizes, strict=True)
    ]
    source, target = emit.input(node), emit.moved(node)
    # DEPTH_TO_SPACE has no int16 kernel, and XNNPACK no int16 at all.
    narrow = emit.writer.tensors[source].dtype in ("float32", "int8")
    if narrow and all(
        np.array_equal(w, np.arange(2 * size) // 2) for w, size in zip(wanted, sizes, strict=True)
    ):
        _doubled(emit, node, source, target)
        emit.settle(node, target)
        return
    for flags in _FLAGS:
        found = [_tflite_nearest(size, len(x), flags) for size, x in zip(sizes, wanted, strict=True)]
        if all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)):
            _write(emit, node, "RESIZE_NEAREST_NEIGHBOR", source, target, flags)
            break
    else:
        n, _, w, c = emit.writer.tensors[source].shape
        rows = emit.scratch(node, "rows", (n, len(wanted[0]), w, c), emit.value(node.inputs[0]))
        for axis, (start, end) in enumerate(((source, rows), (rows, target))):
            indices = emit.constant(wanted[axis].astype(np.int32))
            emit.op("GATHER", [start, indices], [end], "GatherOptions", axis=axis + 1, batchDims=0)
    emit.settle(node, target)


def _doubled(emit: Emitter, node: Node, source: int, target: int) -> None:
    """Twice the size as four copies on the channel axis, then DEPTH_TO_SPACE.

    XNNPACK has both and has no RESIZE_NEAREST_NEIGHBOR, so the graph stays in one piece; as fast or up to
    4 % faster on the whole detectors that were measured (x86, one thread).
    """
    n, h, w, c = emit.writer.tensors[source].shape
    copies = emit.scratch(node, "copies", (n, h, w, 4 * c), emit.value(node.inputs[0]))
    emit.op("CONCATENATION", [source] * 4, [copies], "ConcatenationOptions", axis=3)
    emit.op("DEPTH_TO_SPACE", [copies], [target], "DepthToSpaceOptions", blockSize=2)


def _tflite_nearest(size: int, count: int, flags: tuple[bool, bool]) -> npt.NDArray[np.int64]:
    align, half = flags
    scale = np.float32((size - 1) / (count - 1)) if align and count > 1 else np.float32(size / count)
    x = (np.arange(count, dtype=np.float32) + np.float32(0.5 if half else 0)) * scale
    found = np.floor(x + 0.5) if align else np.floor(x)
    return np.asarray(np.clip(found, 0, size - 1), np.int64)


def _bilinear(emit: Emitter, node: Node, reads: list[Coordinates]) -> None:
    sizes = emit.value(node.inputs[0]).shape[2:]
    for flags in _FLAGS:
        pairs = [(_tflite_linear(size, len(x), flags), x) for size, x in zip(sizes, reads, strict=True)]
        ends = [(np.clip(a, 0, s - 1), np.clip(b, 0, s - 1)) for (a, b), s in zip(pairs, sizes, strict=True)]
        if all(np.allclose(a, b, rtol=0, atol=_TOLERANCE) for a, b in ends):
            target = emit.moved(node)
            _write(emit, node, "RESIZE_BILINEAR", emit.input(node), target, flags)
            emit.settle(node, target)
            return
    raise refuse(
        node,
        f"TFLite cannot interpolate at the coordinates of {node.get('coordinate_transformation_mode')}",
        "export it with half_pixel or align_corners and without a scale that does not fit the sizes",
    )


def _tflite_linear(size: int, count: int, flags: tuple[bool, bool]) -> Coordinates:
    align, half = flags
    scale = (size - 1) / (count - 1) if align and count > 1 else size / count
    x = np.arange(count, dtype=np.float64)
    return (x + 0.5) * scale - 0.5 if half else x * scale


def _write(emit: Emitter, node: Node, code: str, source: int, target: int, flags: tuple[bool, bool]) -> None:
    shape = emit.writer.tensors[target].shape
    size = emit.constant(np.asarray(shape[1:3], np.int32))
    options = "ResizeBilinearOptions" if code == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
    emit.op(code, [source, size], [target], options, alignCorners=flags[0], halfPixelCenters=flags[1])
