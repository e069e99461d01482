"""Shows where the integer part of a .tflite ends.

With a float tail the outputs of an INT8 model are float numbers, whose last bits depend on how a machine
computes a sigmoid. The integers that enter the tail do not: whether two machines agree is seen there.
"""

from __future__ import annotations

import flatbuffers
from ai_edge_litert import schema_py_generated as schema


def expose_integer_ends(model: bytes) -> bytes:
    """The same model, whose only outputs are the INT8 tensors that are turned into floats.

    A model that ends in INT8 keeps those outputs, too. Its computation stays as it is, up to those tensors.

    Raises:
        ValueError: the model computes nothing in INT8.
    """
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
        raise ValueError("the model computes nothing in INT8")
    graph.outputs = list(dict.fromkeys(kept))
    # Signatures name the outputs that were.
    tree.signatureDefs = []
    builder = flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())
