"""Small ``.tflite`` files through the schema's object API."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int16": 7, "int8": 9}
RESHAPE, CUSTOM, ADD = 22, 32, 0


def schema():
    pytest.importorskip("flatbuffers")
    return pytest.importorskip("ai_edge_litert.schema_py_generated")


def make_file(
    *, dtype="float32", scale=None, zero=0, shape=(1, 4, 4, 3), signature=None, inputs=1, code=RESHAPE,
    custom=None, names=None, metadata=None, weight=None, output_index=None,
) -> bytes:  # fmt: skip
    """One operator: RESHAPE (or another) of the first input to the same number of values in a row."""
    import flatbuffers

    s = schema()
    model = s.ModelT()
    model.version, model.description = 3, "test"
    count = int(np.prod(shape))
    target = np.array([1, count], np.int32)
    model.buffers = [s.BufferT(), s.BufferT()]
    model.buffers[1].data = np.frombuffer(target.tobytes(), np.uint8)

    def tensor(name, dims, kind, buffer=0, quantised=True):
        made = s.TensorT()
        made.name, made.shape, made.type, made.buffer = name, np.asarray(dims, np.int32), TYPES[kind], buffer
        if scale is not None and quantised:
            made.quantization = s.QuantizationParametersT()
            made.quantization.scale = np.asarray([scale], np.float32)
            made.quantization.zeroPoint = np.asarray([zero], np.int64)
        return made

    graph = s.SubGraphT()
    graph.tensors = [tensor(f"in{n}", shape, dtype) for n in range(inputs)]
    if signature is not None:
        graph.tensors[0].shapeSignature = np.asarray(signature, np.int32)
    graph.tensors.append(tensor("shape", (2,), "int32", 1, quantised=False))
    graph.tensors.append(tensor("out", (1, count), dtype))
    graph.inputs = np.arange(inputs, dtype=np.int32)
    graph.outputs = np.asarray([inputs + 1], np.int32)
    operator = s.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs = np.asarray([0, inputs], np.int32)
    operator.outputs = np.asarray([inputs + 1 if output_index is None else output_index], np.int32)
    graph.operators = [operator]
    model.subgraphs = [graph]
    kind = s.OperatorCodeT()
    kind.builtinCode = kind.deprecatedBuiltinCode = CUSTOM if custom else code
    kind.customCode, kind.version = custom, 1
    model.operatorCodes = [kind]
    if names is not None:
        model.signatureDefs = [_signature(s, names, inputs)]
    if metadata is not None:
        buffer = s.BufferT()
        buffer.data = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
        model.buffers.append(buffer)
        entry = s.MetadataT()
        entry.name, entry.buffer = "edgeq", 2
        model.metadata = [entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _signature(s, names, inputs):
    made = s.SignatureDefT()
    made.signatureKey, made.subgraphIndex = "serving_default", 0
    for field, name, index in (("inputs", names[0], 0), ("outputs", names[1], inputs + 1)):
        entry = s.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        setattr(made, field, [entry])
    return made


def with_zip(content: bytes, name: str, text: str) -> bytes:
    """A model with an archive behind it, as exporters append metadata."""
    file = io.BytesIO(content)
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return file.getvalue()
