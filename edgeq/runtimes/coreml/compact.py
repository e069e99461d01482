"""Takes out of a saved package what says nothing: in a model of one megabyte it is a tenth.

coremltools writes a name for every operation beside its output's, a constant for every scalar, and each
array of ten or more numbers in blocks of 64 bytes with a header of 64. The format asks for none of that.
Sources: coremltools 9, ``mlmodel/format/MIL.proto`` (an argument is a name or a value; attributes are
optional), ``mil/frontend/milproto/load.py`` (reads both) and ``mlmodel/src/MILBlob/Blob/StorageFormat.hpp``
(weights). Chromium's WebNN writes its Core ML programs so: operations without names, restored weights
among them, and parameters as values.

Arguments that have a default stay. In the format they have none: Core ML's loaders refuse a convolution
without ("Required param 'pad' is missing": coremltools issue 2127 on macOS 13, rustnn pull request 103 on
watchOS 11), and Chromium and ONNX Runtime write them all for that reason.
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import ModelError
from edgeq.runtimes.coreml.package import MODEL_FILE, WEIGHTS_FILE

__all__ = ["compact_package"]

_LARGEST_VALUE_BYTES = 512
"""Arrays up to here stand in the program; in the compiled model, whose text spells numbers out, larger ones
would take more than a block in the file of weights."""
_BLOCK = 64
_HEADER = struct.Struct("<IIQQ")
"""Of each array: mark, type, size, offset of its bytes; filled up to a block."""
_MARK = 0xDEADBEEF


def compact_package(path: Path) -> None:
    """Rewrite a package that coremltools has just saved; the program computes the same.

    Raises:
        ModelError: its weights are not in the form that this coremltools was known to write.
    """
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((path / MODEL_FILE).read_bytes())
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    _share_equal(block)
    _drop_unread(block)
    _move_small_arrays(block, path / WEIGHTS_FILE)
    _put_in_place(block)
    for operation in block.operations:
        if operation.type != "const":
            operation.attributes.pop("name", None)  # its output has the same
    (path / MODEL_FILE).write_bytes(spec.SerializeToString(deterministic=True))


def _constants(block: Any) -> dict[str, Any]:
    """Name -> operation."""
    return {entry.outputs[0].name: entry for entry in block.operations if entry.type == "const"}


def _share_equal(block: Any) -> None:
    """Whoever reads one of several equal constants reads the first of them."""
    first: dict[bytes, str] = {}
    stands_for: dict[str, str] = {}
    for name, operation in _constants(block).items():
        value = operation.attributes["val"].SerializeToString(deterministic=True)
        stands_for[name] = first.setdefault(value, name)
    for operation in block.operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "name":
                    binding.name = stands_for.get(binding.name, binding.name)


def _reads(block: Any) -> Counter[str]:
    """Value -> how many arguments and outputs name it."""
    named = (
        binding.name
        for operation in block.operations
        for argument in operation.inputs.values()
        for binding in argument.arguments
        if binding.WhichOneof("binding") == "name"
    )
    return Counter([*named, *block.outputs])


def _drop_unread(block: Any) -> None:
    """Constants that nothing names."""
    reads = _reads(block)
    kept = [entry for entry in block.operations if entry.type != "const" or reads[entry.outputs[0].name]]
    _replace(block, kept)


def _replace(block: Any, operations: list[Any]) -> None:
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in operations]
    del block.operations[:]
    block.operations.extend(copies)


def _put_in_place(block: Any) -> None:
    """A constant becomes a value of the arguments that read it where that is shorter."""
    uses: dict[str, list[Any]] = {name: [] for name in _constants(block)}
    for operation in block.operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.name in uses:
                    uses[binding.name].append(binding)
    gone: set[str] = set()
    for name, operation in _constants(block).items():
        value = operation.attributes["val"]
        added = (value.ByteSize() - len(name) + 2) * len(uses[name])
        if value.HasField("immediateValue") and name not in block.outputs and added < operation.ByteSize():
            for binding in uses[name]:
                binding.value.CopyFrom(value)
            gone.add(name)
    _replace(block, [entry for entry in block.operations if entry.outputs[0].name not in gone])


def _move_small_arrays(block: Any, path: Path) -> None:
    """Small arrays from the file of weights into the program, the others closer together.

    Raises:
        ModelError: the file is of another form.
    """
    if not path.exists():
        return
    data = path.read_bytes()
    written = bytearray(data[:_BLOCK])
    count = 0
    for operation in block.operations:
        for value in operation.attributes.values():
            if not value.HasField("blobFileValue"):
                continue
            header, content = _array(data, value.blobFileValue.offset)
            if len(content) <= _LARGEST_VALUE_BYTES:
                _set_content(value, content)
                continue
            value.blobFileValue.offset = len(written)
            place = len(written) + _BLOCK
            written += _HEADER.pack(*header, place).ljust(_BLOCK, b"\0") + content
            written += bytes(-len(written) % _BLOCK)
            count += 1
    struct.pack_into("<I", written, 0, count)
    path.write_bytes(written)


def _array(data: bytes, offset: int) -> tuple[tuple[int, int, int], bytes]:
    """Mark, type and size of an array, and its bytes."""
    mark, kind, size, start = _HEADER.unpack_from(data, offset)
    if mark != _MARK or start + size > len(data):
        raise ModelError(
            "this coremltools writes weights in a form that edgeq does not know",
            fix='pip install "coremltools==9.0"',
        )
    return (mark, kind, size), data[start : start + size]


def _set_content(value: Any, content: bytes) -> None:
    """An array as a value of the program: float32 as numbers, narrower types as their bytes."""
    from coremltools.proto import MIL_pb2

    if value.type.tensorType.dataType == MIL_pb2.FLOAT32:
        value.immediateValue.tensor.floats.values.extend(np.frombuffer(content, np.float32).tolist())
    else:
        value.immediateValue.tensor.bytes.values = content
