"""Shows where the integer part of a .tflite ends (host).

With a float tail the outputs of an INT8 model are float numbers, whose last bits depend on how a machine
computes a sigmoid. The integers that enter the tail do not: whether two machines agree is seen there.
"""

from __future__ import annotations

from pathlib import Path

from edgeq.errors import ModelError
from edgeq.files import atomic_write
from edgeq.runtimes.tflite.modelfile import read_model
from edgeq.runtimes.tflite.writer import import_schema

__all__ = ["expose_integer_ends", "integer_ends"]


def integer_ends(artifact: Path, folder: Path) -> Path | None:
    """The file with its INT8 part's last tensors as outputs; see `edgeq.runtimes.base.IntegerEnds`.

    Raises:
        ModelError: the artifact is damaged.
        UnavailableError: ai-edge-litert is not installed.
    """
    read_model(artifact)  # the schema's own reader trusts a file
    try:
        content = expose_integer_ends(artifact.read_bytes())
    except OSError as error:
        raise ModelError(f"{artifact} cannot be read: {error.strerror}") from error
    if content is None:
        return None
    path = folder / f"{artifact.stem}.ends.tflite"
    atomic_write(path, content)
    return path


def expose_integer_ends(model: bytes) -> bytes | None:
    """The same model, whose only outputs are the INT8 tensors that are turned into floats, in their order.

    A model that ends in INT8 keeps those outputs, too. Its computation stays as it is, up to those tensors.
    None: it computes nothing in INT8.
    """
    schema = import_schema()
    import flatbuffers

    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    graph = tree.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in tree.operatorCodes]
    made = {index for op in graph.operators for index in op.outputs}
    ends = [
        op.inputs[0] for op in graph.operators if codes[op.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
    ]
    ends += list(graph.outputs)
    kept = [i for i in ends if i in made and graph.tensors[i].type == schema.TensorType.INT8]
    if not kept:
        return None
    graph.outputs = list(dict.fromkeys(kept))
    # Signatures name the outputs that were, edgeq's metadata the file that goes on from them.
    tree.signatureDefs, tree.metadata, tree.metadataBuffer = [], [], []
    builder = flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())
