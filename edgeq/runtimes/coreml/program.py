"""From an ONNX model to a MIL program, node by node from one table."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from edgeq.errors import ModelError
from edgeq.runtimes.coreml.emit import Emitter
from edgeq.runtimes.coreml.ops import TABLE
from edgeq.runtimes.coreml.source import Source

__all__ = ["Built", "build", "check_ops"]


@dataclass(frozen=True)
class Built:
    """A program and what its names stand for."""

    program: Any
    layers: dict[str, str]
    """Program's name of a value -> the source's node that makes it, for convolutions and matrix products."""
    input: str
    """Name of the input, as the program has it."""
    outputs: dict[str, str]
    """The source's name of an output -> the program's."""
    values: dict[str, str]
    """Program's name of a value -> the source's."""


def check_ops(source: Source) -> None:
    """Return if there is an entry in the table for every node.

    Raises:
        ModelError: there is none for one; names the node.
    """
    for node in source.nodes:
        if node.op not in TABLE:
            near = difflib.get_close_matches(node.op, TABLE, n=2, cutoff=0.7)
            hint = f" ({' or '.join(near)} could)" if near else ""
            raise ModelError(
                f"Core ML: {node.op} node {node.name!r} cannot be lowered: edgeq has no such op{hint}",
                fix="export the model without it, or cut it before that node; please report it",
            )
    if len(source.inputs) != 1:
        raise ModelError(
            f"the model has {len(source.inputs)} inputs ({', '.join(source.inputs)}), edgeq gives one image",
            fix="export the model with the image as its only input",
        )


def build(source: Source, *, half: bool, int8_weights: bool = False) -> Built:
    """The program for iOS 17 and macOS 14 or later.

    Args:
        source: what to write.
        half: float16 but for the decoding of the outputs, which the Neural Engine takes; else float32.
        int8_weights: float weights are stored in INT8, per channel.

    Raises:
        ModelError: a node that Core ML has not, or not in this form.
    """
    import coremltools as ct
    from coremltools.converters.mil.mil import Function, Program, types

    check_ops(source)
    emit = Emitter(source, half=half, int8_weights=int8_weights)
    (name,) = source.inputs
    fed = emit.unique(name)
    placeholder = emit.builder.placeholder(shape=source.shapes[name], dtype=types.fp32)
    program = Program()
    with Function({fed: placeholder}, opset_version=ct.target.iOS17) as function:
        emit.values[name] = function.inputs[fed]
        for node in source.nodes:
            emit.node = node
            TABLE[node.op](emit, node)
        emit.node = None
        outputs = {output: emit.result(output) for output in source.outputs}
        function.set_outputs(list(outputs.values()))
        program.add_function("main", function)
    return Built(
        program,
        emit.layers,
        fed,
        {output: variable.name for output, variable in outputs.items()},
        {variable.name: value for value, variable in emit.values.items()},
    )
