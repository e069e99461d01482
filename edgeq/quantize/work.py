"""Where the multiplications of a model are."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.quantize.graph import constant_array, is_layer, node_name, position_count

__all__ = ["work_shares"]


def work_shares(graph: ir.Graph) -> dict[str, float]:
    """Share of the model's multiplications in each layer, by node name in graph order; they add up to 1."""
    counts: dict[str, float] = {}
    for node in graph:
        if not is_layer(node):
            continue
        weight = constant_array(node.inputs[1])
        counts[node_name(node)] = float((0 if weight is None else weight.size) * position_count(node))
    total = sum(counts.values()) or 1.0
    return {name: count / total for name, count in counts.items()}
