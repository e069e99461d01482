"""What a ``.tflite`` file says, read and checked before the runtime's native code sees it.

LiteRT trusts the file: an offset, tensor or buffer number out of range is a crash, not an error. Field
numbers are those of ``schema.fbs`` in https://github.com/google-ai-edge/LiteRT. Device side: numpy only.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeq.errors import ModelError
from edgeq.runtimes.tflite.filetensor import FileTensor, file_tensor
from edgeq.runtimes.tflite.flatbuffer import Damaged, Table, root_table
from edgeq.runtimes.tflite.metadata import OWN_NAME, parse_own_metadata, zip_metadata

__all__ = ["FileOperator", "FileTensor", "TfliteFile", "read_model", "tail_path"]

_IDENTIFIER = b"TFL3"
_LEAST_BYTES, _MOST_BYTES = 32, 1 << 31
_CUSTOM = 32
"""BuiltinOperator.CUSTOM."""
_MOST_RATIO = 2.0**30
"""Of scales before an operator to those behind it."""
_MAX_METADATA = 1 << 24


@dataclass(frozen=True)
class FileOperator:
    """One operator of the main subgraph."""

    code: int
    """BuiltinOperator."""
    custom: str
    """Name of a custom operator, else empty."""
    inputs: tuple[int, ...]
    """Tensor numbers; -1: left out."""
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class TfliteFile:
    """A ``.tflite`` file whose structure is sound."""

    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: Mapping[int, str] = field(default_factory=dict)
    """Input or output tensor -> its name in the signature, where there is one."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Key-value pairs: the source's in edgeq's own files, else those that an exporter appended."""
    nodes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """edgeq's own files: tensor name -> name and op of the source node that it comes from."""
    tail: str = ""
    """edgeq's integers-only files: name of the float file that goes on from the outputs."""

    def name(self, tensor: int) -> str:
        """Name by which a caller knows an input or output."""
        return self.names.get(tensor) or self.tensors[tensor].name


def read_model(path: Path) -> TfliteFile:
    """The file's main subgraph and metadata, every reference in it checked.

    Raises:
        ModelError: there is no such file, it is not TFLite, truncated or damaged, or needs operators that
            are not TFLite's.
    """
    if not path.is_file():
        raise ModelError(f"there is no model file {path}", fix="check the path")
    size = path.stat().st_size
    if not _LEAST_BYTES <= size < _MOST_BYTES:
        raise ModelError(
            f"{path} has {size} bytes, which no TFLite model has", fix="convert or download it again"
        )
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            found = _read(view)
        except Damaged as error:
            what = "is damaged or truncated" if mapped[4:8] == _IDENTIFIER else "is not a TFLite model"
            # Kept as text: the exception's traceback holds views of the map, which could then not be closed.
            reason = f"{path} {what}: {error}"
        else:
            reason = ""
        finally:
            view.release()
    if reason:
        raise ModelError(reason, fix="convert or download it again, and compare the file's size")
    _check_custom(found.operators, path)
    return found if found.metadata else replace(found, metadata=zip_metadata(path))


def tail_path(path: Path, file: TfliteFile) -> Path | None:
    """The file that goes on from a file's outputs; None: it is complete by itself.

    Raises:
        ModelError: it is named but not there, or named as something outside of the model's folder.
    """
    if not file.tail:
        return None
    if Path(file.tail).name != file.tail or "\\" in file.tail or not file.tail.endswith(".tflite"):
        raise ModelError(f"{path} names {file.tail!r} to go on with, which is no file beside it")
    behind = path.with_name(file.tail)
    if behind == path or not behind.is_file():
        raise ModelError(
            f"{path.name} computes in integers only, and {file.tail}, which decodes its outputs, is missing",
            fix=f"put {file.tail} beside it",
        )
    return behind


def _read(data: memoryview) -> TfliteFile:
    model = root_table(data, _IDENTIFIER)
    if model.scalar(0, "I") != 3:
        raise Damaged(f"schema version {model.scalar(0, 'I')}, not 3")
    if model.has(8) or model.has(9):
        raise Damaged("its weights lie in other files, which edgeq does not follow")
    buffers = [_buffer(entry, data) for entry in model.tables(4)]
    codes = [_code(entry) for entry in model.tables(1)]
    subgraphs = list(model.tables(2))
    if not subgraphs or not buffers:
        raise Damaged("it holds no graph")
    for subgraph in subgraphs[1:]:
        _subgraph(subgraph, buffers, codes)
    tensors, operators, inputs, outputs = _subgraph(subgraphs[0], buffers, codes)
    if not inputs or not outputs:
        raise Damaged("its graph has no inputs or no outputs")
    own = [_metadata(entry, buffers) for entry in model.tables(6)]
    said = parse_own_metadata(b"".join(own))
    names = _signature_names(model, len(tensors), len(subgraphs))
    return TfliteFile(
        tensors, operators, inputs, outputs, names, said.source, nodes=said.nodes, tail=said.tail
    )


def _buffer(entry: Table, data: memoryview) -> memoryview:
    """The bytes of a buffer: inside the flatbuffer, or behind it (models near 2 GB)."""
    offset, size = entry.scalar(1, "Q"), entry.scalar(2, "Q")
    if offset > 1 and size > 1:
        if offset + size > len(data):
            raise Damaged(f"a buffer of {size} bytes at {offset} is beyond the end, {len(data)} bytes")
        return data[offset : offset + size]
    return entry.bytes(0)


def _code(entry: Table) -> tuple[int, str]:
    """Builtin code and custom name; files from before 2020 have the first field only."""
    code = max(entry.scalar(0, "b"), entry.scalar(3, "i"))
    custom = entry.text(1) if code == _CUSTOM else ""
    if code < 0 or (code == _CUSTOM and not custom):
        raise Damaged("an operator without a name")
    return code, custom


def _subgraph(
    entry: Table, buffers: Sequence[memoryview], codes: Sequence[tuple[int, str]]
) -> tuple[tuple[FileTensor, ...], tuple[FileOperator, ...], tuple[int, ...], tuple[int, ...]]:
    tensors = tuple(file_tensor(table, buffers) for table in entry.tables(0))
    inputs = _references(entry, 1, len(tensors), "an input of the graph")
    outputs = _references(entry, 2, len(tensors), "an output of the graph")
    operators = tuple(_operator(table, len(tensors), codes) for table in entry.tables(3))
    for operator in operators:
        _check_scales(operator, tensors)
    return tensors, operators, inputs, outputs


def _operator(entry: Table, tensor_count: int, codes: Sequence[tuple[int, str]]) -> FileOperator:
    index = entry.scalar(0, "I")
    if index >= len(codes):
        raise Damaged(f"operator kind {index} of {len(codes)}")
    code, custom = codes[index]
    for kind, options in ((3, 4), (11, 12)):
        if entry.scalar(kind, "B"):
            entry.table(options)  # read for its checks
    entry.bytes(5)
    _references(entry, 8, tensor_count, "an intermediate tensor")
    inputs = _references(entry, 1, tensor_count, "an operator's input", optional=True)
    outputs = _references(entry, 2, tensor_count, "an operator's output")
    return FileOperator(code, custom, inputs, outputs)


def _check_scales(operator: FileOperator, tensors: Sequence[FileTensor]) -> None:
    """Raise Damaged for scales that TFLite's fixed-point multipliers cannot express: they abort there."""
    factors = [max(tensors[n].scales) for n in operator.inputs[:2] if n >= 0 and tensors[n].scales]
    result = max((s for n in operator.outputs[:1] for s in tensors[n].scales), default=0.0)
    if (
        factors
        and result
        and (max(factors) >= _MOST_RATIO * result or math.prod(factors) >= _MOST_RATIO * result)
    ):
        raise Damaged(f"the scales around {tensors[operator.outputs[0]].name!r} are beyond all measure")


def _references(
    entry: Table, number: int, count: int, what: str, *, optional: bool = False
) -> tuple[int, ...]:
    found = tuple(int(value) for value in entry.numbers(number, "<i4"))
    if any(not (-1 if optional else 0) <= value < count for value in found):
        raise Damaged(f"{what} is a tensor that there is not")
    return found


def _metadata(entry: Table, buffers: Sequence[memoryview]) -> bytes:
    index = entry.scalar(1, "I")
    if index >= len(buffers):
        raise Damaged(f"metadata in buffer {index} of {len(buffers)}")
    return bytes(buffers[index][:_MAX_METADATA]) if entry.text(0) == OWN_NAME else b""


def _signature_names(model: Table, tensor_count: int, subgraph_count: int) -> dict[int, str]:
    """Names of the main subgraph's inputs and outputs, from ``serving_default`` or the first signature."""
    chosen: dict[int, str] = {}
    for entry in model.tables(7):
        subgraph = entry.scalar(4, "I")
        if subgraph >= subgraph_count:
            raise Damaged(f"a signature of graph {subgraph} of {subgraph_count}")
        pairs = [(t.scalar(1, "I"), t.text(0)) for number in (0, 1) for t in entry.tables(number)]
        if subgraph:
            continue
        if any(tensor >= tensor_count for tensor, _ in pairs):
            raise Damaged("a signature names a tensor that there is not")
        if not chosen or entry.text(2) == "serving_default":
            chosen = dict(pairs)
    return chosen


def _check_custom(operators: Sequence[FileOperator], path: Path) -> None:
    """Raise ModelError for operators that need a runtime other than TFLite's own."""
    names = sorted({operator.custom for operator in operators if operator.custom})
    flex = [name for name in names if name.startswith("Flex")]
    if flex:
        raise ModelError(
            f"{path.name} needs TensorFlow itself for {', '.join(flex)} (Flex operators), which no board has",
            fix="convert it again with TFLite's builtin operators only, "
            "or quantise the source with 'edgeq quantize'",
        )
    if "edgetpu-custom-op" in names:
        raise ModelError(
            f"{path.name} was compiled for the Coral Edge TPU and runs nowhere else",
            fix="give the file from before the Edge TPU compiler",
        )
