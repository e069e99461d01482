"""Where the multiplications of a model are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.quantize.graph import constant_array, is_layer, node_name

__all__ = ["work_shares"]


def work_shares(graph: ir.Graph) -> dict[str, float]:
    """Share of the model's multiplications in each layer, by node name in graph order; they add up to 1."""
    counts: dict[str, float] = {}
    for node in graph:
        if not is_layer(node):
            continue
        weight = constant_array(node.inputs[1])
        shape = node.outputs[0].shape
        positions = 1
        if shape is not None and len(shape) > 2:
            positions = int(np.prod([dim if isinstance(dim, int) else 1 for dim in list(shape)[2:]]))
        counts[node_name(node)] = float((0 if weight is None else weight.size) * positions)
    total = sum(counts.values()) or 1.0
    return {name: count / total for name, count in counts.items()}
