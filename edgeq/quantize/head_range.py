"""Range of a head tensor: everything that the scores can tell apart, and nothing clipped at the top.

A convolution or noise behind it says nothing here, since only decoding follows. Squared error would give
the levels to the background, of which there is most, and clip the few confident logits.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeq.quantize.graph import users
from edgeq.quantize.grid import Range

__all__ = ["becomes_score", "head_range", "is_head"]

_FLOOR = -8.0
"""sigmoid(-8) = 0.0003: under any confidence that a detection is asked for."""
_MOVES = frozenset({"Concat", "Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})


def is_head(value: ir.Value, tail: set[ir.Node]) -> bool:
    """Whether only the decoding of the outputs reads a value that a layer has made."""
    readers, producer = users(value), value.producer()
    return bool(readers) and producer is not None and all(node in tail for node in readers)


def head_range(value: ir.Value, observed: Range) -> Range:
    """The observed range, from -8 on where the values become scores by a sigmoid.

    Args:
        value: a head tensor.
        observed: its smallest and largest value.
    """
    if not becomes_score(value):
        return observed
    return Range(max(observed.low, _FLOOR), max(observed.high, 0.0))


def becomes_score(value: ir.Value, *, at_once: bool = False) -> bool:
    """Whether a sigmoid is taken of a value that nothing but moves reads before it.

    Args:
        value: a head tensor.
        at_once: also nothing but moves comes behind it, as it does where the sigmoid is part of a box.
    """
    stack, seen = [(value, False)], {value}
    found = False
    while stack:
        current, behind = stack.pop()
        for node in users(current):
            sigmoid = node.op_type == "Sigmoid" and not behind
            if sigmoid and not at_once:
                return True
            if not sigmoid and node.op_type not in _MOVES:
                if at_once:
                    return False
                continue
            found |= sigmoid
            made = [output for output in node.outputs if output not in seen]
            stack += [(output, behind or sigmoid) for output in made]
            seen.update(made)
    return found
