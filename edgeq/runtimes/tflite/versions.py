"""The version that an operator has to carry, so that a runtime too old for it refuses it by name.

Source: ``tflite/converter/tools/versioning/op_version.cc`` of google-ai-edge/LiteRT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.runtimes.tflite.writer import Tensor

__all__ = ["op_version"]

_INT8 = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), 3),
    "FULLY_CONNECTED": 4,
    "TILE": 3,
    **dict.fromkeys(
        (
            *("ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "DEPTH_TO_SPACE", "GATHER"),
            *("LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PAD", "PADV2", "REDUCE_MAX", "RELU", "RELU6"),
            *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPACE_TO_DEPTH", "SPLIT"),
            *("STRIDED_SLICE", "SUB", "TRANSPOSE", "TRANSPOSE_CONV", "ARG_MAX", "TANH", "SOFTMAX"),
        ),
        2,
    ),
}
_INT16 = {
    **dict.fromkeys(("CONV_2D", "SPLIT", "SLICE", "MUL", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), 4),
    **dict.fromkeys(("DEPTHWISE_CONV_2D", "SUB", "TRANSPOSE"), 5),
    "FULLY_CONNECTED": 7,
    **dict.fromkeys(("ADD", "LOGISTIC", "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "MEAN", "CONCATENATION"), 3),
    **dict.fromkeys(("LEAKY_RELU", "TRANSPOSE_CONV"), 2),
}
_HYBRID = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12}
"""Float activations, int8 weights with one scale per channel."""


def op_version(code: str, tensors: Sequence[Tensor], fields: Mapping[str, Any]) -> int:
    """Of an operator.

    Args:
        code: its name in the schema.
        tensors: its inputs, then its outputs.
        fields: its options.
    """
    kinds = [tensor.dtype for tensor in tensors]
    data = kinds[1] if code in ("SPLIT", "TRANSPOSE_CONV") and len(kinds) > 1 else kinds[0]
    if code == "QUANTIZE":
        return 2 if kinds[-1] == "int16" else 1
    if code == "BROADCAST_TO":
        return 2
    if code == "DEQUANTIZE":
        return {"int8": 2}.get(kinds[0], 3)
    found = {"int8": _INT8, "int16": _INT16}.get(data, {}).get(code, 1)
    if kinds[0] == "float32" and len(kinds) > 1 and kinds[1] == "int8":
        found = _HYBRID.get(code, found)
    rank = max(len(tensor.shape) for tensor in tensors)
    limits: dict[str, tuple[bool, int]] = {
        "RESIZE_NEAREST_NEIGHBOR": (bool(fields.get("halfPixelCenters") or fields.get("alignCorners")), 3),
        "RESIZE_BILINEAR": (bool(fields.get("halfPixelCenters")), 3),
        "FULLY_CONNECTED": (bool(fields.get("keepNumDims")), 5),
        "TRANSPOSE_CONV": (len(kinds) > 4, 3),
        "DEPTHWISE_CONV_2D": (fields.get("dilationHFactor", 1) > 1, 2),
        "TRANSPOSE": (rank > 4, 4),
        "SLICE": (rank > 4, 5),
        "STRIDED_SLICE": (rank > 4, 4),
        "PAD": (rank > 4, 4),
        "SUB": (rank > 4, 3),
    }
    holds, least = limits.get(code, (False, 1))
    if code == "CONV_2D" and len(tensors[0].shape) == len(tensors[1].shape) == 4:
        grouped = tensors[0].shape[3] != tensors[1].shape[3]
        holds, least = grouped, 6
    return max(found, least) if holds else found
