"""Ops that choose values: what the decoding of end-to-end detectors needs."""

from __future__ import annotations

import numpy as np

from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.source import Node, as_ints, refuse

__all__ = ["arg_max", "cast", "gather", "gather_elements", "gather_nd", "top_k", "where"]

_CASTS = {1: "float", 10: "float", 11: "float", 6: "int32", 7: "int32", 9: "bool", 2: "int32", 3: "int32"}
"""ONNX's TensorProto.DataType -> MIL's type; Core ML computes with no 64-bit integers."""


def cast(emit: Emitter, node: Node) -> None:
    """cast."""
    kind = _CASTS.get(int(node.get("to", 0)))
    if kind is None:
        raise refuse(node, f"a cast to ONNX type {node.get('to')}", "export the model without it")
    if kind == "float":
        kind = "fp16" if emit.half_now else "fp32"
    emit.write(node, "cast", x=emit.input(node, 0), dtype=kind)


def gather(emit: Emitter, node: Node) -> None:
    """gather."""
    emit.write(
        node, "gather", x=emit.input(node, 0), indices=emit.input(node, 1),
        axis=np.int32(node.get("axis", 0)), validate_indices=False,
    )  # fmt: skip


def gather_elements(emit: Emitter, node: Node) -> None:
    """gather_along_axis."""
    emit.write(
        node, "gather_along_axis", x=emit.input(node, 0), indices=emit.input(node, 1),
        axis=np.int32(node.get("axis", 0)), validate_indices=False,
    )  # fmt: skip


def gather_nd(emit: Emitter, node: Node) -> None:
    """gather_nd."""
    emit.write(
        node, "gather_nd", x=emit.input(node, 0), indices=emit.input(node, 1),
        batch_dims=np.int32(node.get("batch_dims", 0)), validate_indices=False,
    )  # fmt: skip


def top_k(emit: Emitter, node: Node) -> None:
    """topk: values and indices."""
    (count,) = as_ints(emit.fixed(node, 1, "count"))
    values, indices = emit.op(
        "topk", x=emit.input(node, 0), k=np.int32(count),
        axis=np.int32(node.get("axis", -1)), ascending=not node.get("largest", 1),
        sort=bool(node.get("sorted", 1)), return_indices=True,
    )  # fmt: skip
    emit.values[node.outputs[0]] = values
    if len(node.outputs) > 1 and node.outputs[1]:
        emit.values[node.outputs[1]] = indices


def arg_max(emit: Emitter, node: Node) -> None:
    """reduce_argmax."""
    emit.write(
        node, "reduce_argmax", x=emit.input(node, 0), axis=np.int32(node.get("axis", 0)),
        keep_dims=bool(node.get("keepdims", 1)),
    )  # fmt: skip


def where(emit: Emitter, node: Node) -> None:
    """select."""
    emit.write(node, "select", cond=emit.input(node, 0), a=emit.input(node, 1), b=emit.input(node, 2))
