"""Pools and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.ops.conv import padding
from edgeq.runtimes.coreml.source import Node, as_ints, refuse

__all__ = ["average_pool", "global_pool", "max_pool", "reduce"]


def max_pool(emit: Emitter, node: Node) -> None:
    """max_pool."""
    _pool(emit, node, "max_pool")


def average_pool(emit: Emitter, node: Node) -> None:
    """avg_pool."""
    _pool(emit, node, "avg_pool", exclude_padding_from_average=not node.get("count_include_pad", 0))


def _pool(emit: Emitter, node: Node, kind: str, **more: Any) -> None:
    kernel = tuple(int(size) for size in node.get("kernel_shape"))
    if len(node.outputs) > 1 and node.outputs[1]:
        raise refuse(node, "it gives indices too", "export it without them")
    if any(int(entry) != 1 for entry in node.get("dilations") or ()):
        raise refuse(node, "it has dilations", "export it without them")
    emit.write(
        node, kind, x=emit.input(node, 0), kernel_sizes=np.asarray(kernel, np.int32),
        strides=np.asarray(node.get("strides") or [1] * len(kernel), np.int32),
        **padding(emit, node, kernel), ceil_mode=bool(node.get("ceil_mode", 0)), **more,
    )  # fmt: skip


def global_pool(kind: str) -> Callable[[Emitter, Node], None]:
    """A reduction over height and width."""

    def write(emit: Emitter, node: Node) -> None:
        axes = np.arange(2, len(emit.shape(node.inputs[0])), dtype=np.int32)
        emit.write(node, kind, x=emit.input(node, 0), axes=axes, keep_dims=True)

    return write


def reduce(kind: str) -> Callable[[Emitter, Node], None]:
    """A reduction over axes that are an attribute or, in newer operator sets, an input."""

    def write(emit: Emitter, node: Node) -> None:
        axes = node.get("axes")
        if axes is None and node.input(1):
            axes = as_ints(emit.fixed(node, 1, "list of axes"))
        if axes is None:
            axes = range(len(emit.shape(node.inputs[0])))
        keep = bool(node.get("keepdims", 1))
        found = np.asarray(list(axes), np.int32)
        emit.write(node, kind, x=emit.input(node, 0), axes=found, keep_dims=keep)

    return write
