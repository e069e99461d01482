"""The flatbuffer: tensors, buffers and operators as the schema's object API wants them.

Schema: ``tflite/converter/schema/schema.fbs`` of google-ai-edge/LiteRT; its Python form ships in
ai-edge-litert. Only fields that TFLite 2.14 knows are set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import UnavailableError
from edgeq.runtimes.tflite.graph import Grid

__all__ = ["Writer", "import_schema"]

_IDENTIFIER = b"TFL3"
_VERSION = 3
_ALIGNMENT = 16
_PLACEHOLDER_BITS = 127
_TYPES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}


def import_schema() -> Any:
    """The schema's object API.

    Raises:
        UnavailableError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise UnavailableError(
            f"writing .tflite needs the schema in ai-edge-litert: {error}", fix='pip install "edgeq[tflite]"'
        ) from error
    return schema_py_generated


@dataclass
class Tensor:
    """A tensor of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    grid: Grid | None = None
    """Its axis is in the stored order."""
    data: npt.NDArray[Any] | None = None


@dataclass
class Operator:
    """An operator of the file."""

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: str | None
    fields: Mapping[str, Any]
    version: int


@dataclass
class Writer:
    """Collects what the file will hold."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def tensor(self, tensor: Tensor) -> int:
        """Index of a new tensor."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, operator: Operator) -> None:
        """Append an operator."""
        self.operators.append(operator)

    def serialise(
        self,
        *,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        metadata: Mapping[str, bytes],
        description: str,
    ) -> bytes:
        """The file.

        Args:
            inputs: name in the signature -> tensor.
            outputs: the same for outputs.
            metadata: buffers by name.
            description: one line.
        """
        import flatbuffers

        schema = import_schema()
        model = schema.ModelT()
        model.version, model.description = _VERSION, description
        model.buffers = [schema.BufferT()]
        model.operatorCodes, codes = self._codes(schema)
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors = [self._tensor(schema, tensor, model.buffers) for tensor in self.tensors]
        subgraph.inputs = np.asarray(list(inputs.values()), np.int32)
        subgraph.outputs = np.asarray(list(outputs.values()), np.int32)
        subgraph.operators = [
            _operator(schema, entry, codes[entry.code, entry.version]) for entry in self.operators
        ]
        model.subgraphs = [subgraph]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = _maps(schema, inputs), _maps(schema, outputs)
        model.signatureDefs = [signature]
        model.metadata = [_metadata(schema, name, data, model.buffers) for name, data in metadata.items()]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())

    def _codes(self, schema: Any) -> tuple[list[Any], dict[tuple[str, int], int]]:
        made: list[Any] = []
        index: dict[tuple[str, int], int] = {}
        for entry in self.operators:
            if (entry.code, entry.version) in index:
                continue
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, entry.code)
            # Readers older than the 127th operator look here.
            code.deprecatedBuiltinCode = min(code.builtinCode, _PLACEHOLDER_BITS)
            code.version = entry.version
            index[entry.code, entry.version] = len(made)
            made.append(code)
        return made, index

    def _tensor(self, schema: Any, tensor: Tensor, buffers: list[Any]) -> Any:
        made = schema.TensorT()
        made.name, made.shape = tensor.name, np.asarray(tensor.shape, np.int32)
        made.type = getattr(schema.TensorType, _TYPES[tensor.dtype])
        made.hasRank = True
        made.buffer = 0
        if tensor.data is not None:
            made.buffer = len(buffers)
            buffers.append(_buffer(schema, np.ascontiguousarray(tensor.data).tobytes()))
        if tensor.grid is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.asarray(tensor.grid.scale, np.float32)
            made.quantization.zeroPoint = np.asarray(tensor.grid.zero_point, np.int64)
            made.quantization.quantizedDimension = tensor.grid.axis or 0
        return made


def _operator(schema: Any, entry: Operator, code: int) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = code
    made.inputs = np.asarray(entry.inputs, np.int32)
    made.outputs = np.asarray(entry.outputs, np.int32)
    if entry.options is not None:
        options = getattr(schema, f"{entry.options}T")()
        for name, value in entry.fields.items():
            setattr(options, name, value)
        made.builtinOptionsType = getattr(schema.BuiltinOptions, entry.options)
        made.builtinOptions = options
    return made


def _maps(schema: Any, tensors: Mapping[str, int]) -> Sequence[Any]:
    made = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        made.append(entry)
    return made


def _metadata(schema: Any, name: str, data: bytes, buffers: list[Any]) -> Any:
    made = schema.MetadataT()
    made.name, made.buffer = name, len(buffers)
    buffers.append(_buffer(schema, data))
    return made


def _buffer(schema: Any, data: bytes) -> Any:
    """A buffer aligned to 16 bytes, which the schema demands and its Python form does not do."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> int:  # noqa: N802 - the generated code calls it so
            builder.StartVector(1, len(data), _ALIGNMENT)
            start = builder.head = builder.Head() - len(data)
            builder.Bytes[start : start + len(data)] = data
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
            return int(schema.BufferEnd(builder))

    return Aligned()
