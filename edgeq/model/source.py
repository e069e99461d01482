"""Sources: what the user has, as a float model that the rest of edgeq takes for granted."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeq.errors import ModelError, SpecError
from edgeq.model.normalize import Parity, normalise
from edgeq.model.presets import SpecOverrides
from edgeq.model.recognise import recognise
from edgeq.model.specfile import find_spec_file, load_spec_file, merge
from edgeq.types import HeadSpec, InputSpec, TensorInfo

__all__ = ["FloatModel", "describe_onnx", "load"]

_MOST_BYTES = 2_000_000_000
"""protobuf's own limit."""


@dataclass(frozen=True)
class FloatModel:
    """The source as a normalised ONNX graph, with what it wants to see and what it answers."""

    onnx_bytes: bytes
    """Normalised float32 ONNX: opset 13 or later, static shapes, constants and batch norm folded."""
    input: InputSpec
    head: HeadSpec
    source: str
    """Name of the file that the user gave."""
    parity: Parity
    """How closely the normalised graph computes what the source does."""
    notes: tuple[str, ...]
    """What was recognised, and from what; to be shown to the user."""

    @property
    def sha256(self) -> str:
        """Digest of the normalised model."""
        return hashlib.sha256(self.onnx_bytes).hexdigest()


def load(path: Path, *, overrides: SpecOverrides | None = None) -> FloatModel:
    """Float model of an ``.onnx`` file or an Ultralytics ``.pt`` checkpoint.

    A ``MODEL.edgeq.toml`` beside the file is read; ``overrides`` go before it.

    Raises:
        ModelError: not a model, damaged, or an operator or form that edgeq cannot take.
        SpecError: input or head not recognised for certain; the message shows the choices.
        UnavailableError: a ``.pt`` without the ``yolo`` extra.
    """
    if not path.is_file():
        raise ModelError(f"there is no model file {path}", fix="check the path")
    given = overrides or SpecOverrides()
    beside = find_spec_file(path)
    if beside is not None:
        given = merge(given, load_spec_file(beside))
    if path.suffix.lower() == ".pt":
        from edgeq.model.ultralytics import export_onnx

        with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
            exported = export_onnx(path, Path(folder), size=given.size)
            return _from_onnx(exported, given, name=path.name)
    return _from_onnx(path, given, name=path.name)


def describe_onnx(model: onnx.ModelProto) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs (without initializers) and outputs of a model."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_info(value) for value in model.graph.input if value.name not in constants)
    return inputs, tuple(_info(value) for value in model.graph.output)


def _from_onnx(path: Path, given: SpecOverrides, *, name: str) -> FloatModel:
    model = _read(path)
    inputs, outputs = describe_onnx(model)
    _check_inputs(inputs, name)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    op_types = frozenset(node.op_type for node in model.graph.node)
    outputs = _with_known_shapes(model, outputs)
    specs = recognise(inputs=inputs, outputs=outputs, metadata=metadata, op_types=op_types, overrides=given)
    data, parity = normalise(model, input_name=specs.input.name, input_shape=specs.input.shape)
    return FloatModel(data, specs.input, specs.head, name, parity, specs.notes)


def _read(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file; it is untrusted input."""
    if path.stat().st_size > _MOST_BYTES:
        raise ModelError(f"{path} is larger than 2 GB", fix="edgeq takes models that fit one protobuf file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own DecodeError; any failure here means "not ONNX"
        raise ModelError(
            f"{path} is not a readable ONNX file ({type(error).__name__}): truncated, or another format",
            fix="export it again, and compare the file's size with the original's"
            if path.suffix.lower() == ".onnx"
            else "give an .onnx file or an Ultralytics .pt",
        ) from error
    if not model.graph.node:
        raise ModelError(f"{path} holds no ONNX graph: not an ONNX file, or truncated", fix="export it again")
    _load_external_data(model, path)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{path} is not valid ONNX: {first}", fix="export it again") from error
    return model


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Weights in files beside the model; they have to lie in the model's own folder."""
    external = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
        target = (path.parent / location).resolve()
        if not location or path.parent.resolve() not in target.parents:
            raise ModelError(
                f"{path}: tensor {tensor.name!r} points outside the model's folder: {location!r}"
            )
        if not target.is_file():
            raise ModelError(
                f"{path} keeps its weights in {location!r}, which is missing",
                fix=f"put {location} beside {path.name}, or export the model into one file",
            )
    if external:
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(f"{path}: the external weights cannot be read: {error}") from error


def _check_inputs(inputs: tuple[TensorInfo, ...], name: str) -> None:
    if len(inputs) == 1:
        return
    listed = ", ".join(f"{info.name} {list(info.shape)}" for info in inputs) or "none"
    raise SpecError(
        f"{name} has {len(inputs)} inputs ({listed}); edgeq takes models with one image input",
        fix="export the model with the image as its only input, the others as constants",
    )


def _with_known_shapes(model: onnx.ModelProto, outputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """Outputs with shapes inferred where the file leaves them symbolic."""
    if all(isinstance(size, int) for info in outputs for size in info.shape) and all(
        o.shape for o in outputs
    ):
        return outputs
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return outputs
    return tuple(_info(value) for value in inferred.graph.output)


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        dims.append(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or None
        )
    return TensorInfo(value.name, tuple(dims), _dtype_name(tensor.elem_type))


def _dtype_name(element_type: int) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(element_type))
    except (KeyError, ValueError):
        return f"onnx:{element_type}"
