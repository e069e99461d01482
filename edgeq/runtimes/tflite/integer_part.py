"""Shows where the integer part of a .tflite begins and ends (host).

Float layers round as each CPU does, integer ones everywhere alike. So the outputs of an INT8 model with a
float tail differ between machines in their last bits, and a float layer ahead of the integer part may push a
number over a rounding boundary. Whether two machines agree, and where they part, is seen at these tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import ModelError
from edgeq.files import atomic_write
from edgeq.runtimes.optional import IntegerPart
from edgeq.runtimes.tflite.modelfile import read_model
from edgeq.runtimes.tflite.writer import import_schema

__all__ = ["integer_part"]


def integer_part(artifact: Path, folder: Path) -> IntegerPart | None:
    """See `edgeq.runtimes.optional.ShowsIntegers`.

    Raises:
        ModelError: the artifact is damaged.
        OutputError: it cannot be written.
        UnavailableError: ai-edge-litert is not installed.
    """
    read_model(artifact)  # the schema's own reader trusts a file
    schema = import_schema()
    import flatbuffers

    try:
        content = artifact.read_bytes()
    except OSError as error:
        raise ModelError(f"{artifact} cannot be read: {error.strerror}") from error
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    graph = tree.subgraphs[0]
    begins, ends = _seams(tree, schema)
    if not begins and not ends:
        return None
    # In the order of the model, so that the first that differs is where a difference arises.
    position = {index: number for number, op in enumerate(graph.operators) for index in op.outputs}
    graph.outputs = sorted({*begins, *ends}, key=lambda index: position[index])
    # Signatures name the outputs that were, edgeq's metadata the file that goes on from them.
    tree.signatureDefs, tree.metadata, tree.metadataBuffer = [], [], []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(tree.Pack(builder), b"TFL3")
    path = folder / f"{artifact.stem}.integers.tflite"
    atomic_write(path, bytes(builder.Output()))

    def names(indices: set[int]) -> frozenset[str]:
        return frozenset(graph.tensors[index].name.decode() for index in indices)

    return IntegerPart(path, names(begins), names(ends - begins))


def _seams(tree: Any, schema: Any) -> tuple[set[int], set[int]]:
    """Tensors that float layers are rounded to, and those that float layers or the caller read."""
    graph = tree.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in tree.operatorCodes]
    made = {index for op in graph.operators for index in op.outputs}

    def integer(index: int) -> bool:
        return bool(graph.tensors[index].type == schema.TensorType.INT8)

    begins, ends = set(), {index for index in graph.outputs if index in made and integer(index)}
    for op in graph.operators:
        code = codes[op.opcodeIndex]
        if code == schema.BuiltinOperator.QUANTIZE and integer(op.outputs[0]) and not integer(op.inputs[0]):
            begins.add(op.outputs[0])
        elif code == schema.BuiltinOperator.DEQUANTIZE and op.inputs[0] in made and integer(op.inputs[0]):
            ends.add(op.inputs[0])
    return begins, ends
