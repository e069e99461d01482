"""Which operators really run in INT8, which of them inside XNNPACK, and why not the others.

The types in the file decide the precision, as TFLite never changes them; the interpreter tells which
operators XNNPACK took. "Dynamic range" means INT8 weights with float activations that are rounded to INT8
anew, by their own extremes, at every inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.runtimes.base import AuditReport, LayerAudit, LayerPrecision, SessionOptions
from edgeq.runtimes.tflite.hazards import undefined_operators, undefined_warning
from edgeq.runtimes.tflite.modelfile import FileOperator, FileTensor, TfliteFile, read_model, tail_path
from edgeq.runtimes.tflite.native import Wheel, delegated, import_wheel
from edgeq.runtimes.tflite.session import open_interpreter
from edgeq.types import COMPUTE_OPS

__all__ = ["audit"]


@dataclass(frozen=True)
class _Compute:
    """A convolution or matrix product of TFLite: its ONNX op, and which inputs are what."""

    op: str
    activation: int = 0
    weight: int = 1
    bias: int = 2


_COMPUTE = {
    "CONV_2D": _Compute("Conv"),
    "CONV_3D": _Compute("Conv"),
    "DEPTHWISE_CONV_2D": _Compute("Conv"),
    "TRANSPOSE_CONV": _Compute("ConvTranspose", activation=2, weight=1, bias=3),
    "FULLY_CONNECTED": _Compute("Gemm"),
    "BATCH_MATMUL": _Compute("MatMul"),
}
_BYTES = frozenset({"int8", "uint8", "int4"})
_FLOATS = frozenset({"float32", "float16", "bfloat16"})
_MOVES = frozenset(
    {
        *("CAST", "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "FAKE_QUANT", "GATHER", "GATHER_ND", "PACK"),
        *("PAD", "PADV2", "MIRROR_PAD", "QUANTIZE", "RESHAPE", "SHAPE", "SLICE", "SPACE_TO_DEPTH", "SPLIT"),
        *(
            "SPLIT_V",
            "SQUEEZE",
            "STRIDED_SLICE",
            "TILE",
            "TRANSPOSE",
            "UNPACK",
            "BROADCAST_TO",
            "MAX_POOL_2D",
        ),
        *("RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "DENSIFY"),
    }
)
"""Operators that compute nothing, or only select: their type is their input's."""
_MOST_RATIO = 256.0
"""XNNPACK takes convolutions with scale_in * scale_weight / scale_out below this."""


@dataclass(frozen=True)
class _Loaded:
    """The file beside what the interpreter made of it."""

    file: TfliteFile
    names: Sequence[str]
    """Of each operator's kind: ``CONV_2D``."""
    taken: frozenset[int]
    pieces: int
    """Of the graph that XNNPACK runs."""
    xnnpack: bool
    producers: Mapping[int, int]

    def tensor(self, operator: FileOperator, place: int) -> FileTensor | None:
        """An operator's input; None where it is left out."""
        number = operator.inputs[place] if place < len(operator.inputs) else -1
        return self.file.tensors[number] if number >= 0 else None


def audit(
    artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
) -> AuditReport:
    """Every operator of the main graph with its precision and kernel.

    Layers are named after their source nodes where the file's metadata tells them (edgeq's own files),
    else after the tensor that they write.

    Args:
        artifact: a ``.tflite`` file.
        options: as it will be run.
        reasons: source node -> why the plan keeps it in float.

    Raises:
        ModelError: TFLite cannot load it.
        UnavailableError: TFLite is not installed.
    """
    wheel = import_wheel()
    file = read_model(artifact)
    loaded = [_load(wheel, artifact, file, options)]
    behind = tail_path(artifact, file)
    if behind is not None:
        loaded.append(_load(wheel, behind, read_model(behind), options))
    audited = [[_layer(n, part, reasons or {}) for n in range(len(part.names))] for part in loaded]
    taken, count, pieces = (
        sum(counts)
        for counts in zip(*((len(p.taken), len(p.names), p.pieces) for p in loaded))  # noqa: B905 (boards may have Python 3.9)
    )
    details = {
        "version": wheel.version,
        "package": wheel.package,
        "delegate": "XNNPACK" if pieces else "none",
        "delegated_ops": f"{taken} of {count} in {pieces} parts",
        "told_by": "the file's types and the interpreter's operators after delegation",
    }
    layers = tuple(layer for part in audited for layer in part)
    return AuditReport("tflite", layers, details, _remarks(loaded[0], audited[0]))


def _load(wheel: Wheel, path: Path, file: TfliteFile, options: SessionOptions) -> _Loaded:
    operators = open_interpreter(wheel, path, options)._get_ops_details()
    taken, pieces = delegated(operators)
    return _Loaded(
        file=file,
        names=[str(entry["op_name"]) for entry in operators[: len(file.operators)]],
        taken=taken,
        pieces=pieces,
        xnnpack=options.xnnpack is not False,
        producers={tensor: n for n, entry in enumerate(file.operators) for tensor in entry.outputs},
    )


def _layer(number: int, loaded: _Loaded, reasons: Mapping[str, str]) -> LayerAudit:
    operator, kind = loaded.file.operators[number], loaded.names[number]
    kernel = f"{'XNNPACK' if number in loaded.taken else 'TFLite'} {kind}"
    name, source_op = _source(loaded.file, operator)
    compute = _COMPUTE.get(kind)
    if compute is None:
        return LayerAudit(name, kind, _moved_precision(operator, kind, loaded), kernel)
    precision, why = _compute_precision(operator, compute, loaded)
    if precision is LayerPrecision.FLOAT and name in reasons:
        why = reasons[name]
    elif precision is LayerPrecision.INT8 and number not in loaded.taken:
        why = f"INT8, but on TFLite's own kernel: {_why_not_taken(operator, compute, loaded)}"
    op = source_op if source_op in COMPUTE_OPS else compute.op
    return LayerAudit(name, op, precision, kernel, why)


def _source(file: TfliteFile, operator: FileOperator) -> tuple[str, str]:
    """Name and op of the source node, or the tensor's name where the file does not tell."""
    tensor = file.tensors[operator.outputs[0]].name if operator.outputs else "?"
    return file.nodes.get(tensor, (tensor, ""))


def _compute_precision(
    operator: FileOperator, compute: _Compute, loaded: _Loaded
) -> tuple[LayerPrecision, str]:
    """Of a convolution or matrix product, and why it is not INT8."""
    activation, weight = (loaded.tensor(operator, place) for place in (compute.activation, compute.weight))
    if activation is None or weight is None:
        return LayerPrecision.OTHER, "it lacks an input"
    if activation.dtype in _BYTES and weight.dtype in _BYTES:
        return LayerPrecision.INT8, ""
    if activation.dtype == "int16" and weight.dtype in (*_BYTES, "int16"):
        return LayerPrecision.OTHER, f"{weight.dtype.upper()} weights with INT16 activations"
    if activation.dtype in _FLOATS and weight.dtype in _BYTES:
        return LayerPrecision.OTHER, f"dynamic range: {weight.dtype.upper()} weights{_scales(weight)}, " + (
            "float activations rounded anew at every inference"
        )
    if activation.dtype in _FLOATS:
        return LayerPrecision.FLOAT, _why_float(operator, compute, loaded)
    return LayerPrecision.OTHER, f"{activation.dtype} activations, {weight.dtype} weights"


def _scales(weight: FileTensor) -> str:
    return " with one scale for all channels" if len(weight.scales) == 1 else ""


def _why_float(operator: FileOperator, compute: _Compute, loaded: _Loaded) -> str:
    """Whether its weights are at least stored in fewer bits."""
    number = operator.inputs[compute.weight]
    producer = loaded.producers.get(number)
    if producer is None or loaded.names[producer] != "DEQUANTIZE":
        return "not quantised in the model"
    stored = loaded.tensor(loaded.file.operators[producer], 0)
    if stored is None or not stored.constant:
        return "its input is not quantised in the model"
    return f"its weights are only stored in {stored.dtype} and made float again before use"


def _why_not_taken(operator: FileOperator, compute: _Compute, loaded: _Loaded) -> str:
    """Why XNNPACK left an INT8 convolution or matrix product, as far as the file tells."""
    if not loaded.xnnpack:
        return "XNNPACK is off"
    weight, bias = loaded.tensor(operator, compute.weight), loaded.tensor(operator, compute.bias)
    activation = loaded.tensor(operator, compute.activation)
    output = loaded.file.tensors[operator.outputs[0]]
    if weight is not None and not weight.constant:
        return "its weights are not constant"
    if weight is not None and any(weight.zero_points) and weight.dtype == "int8":
        return "its weights have a zero point other than 0"
    if bias is not None and not bias.constant:
        return "its bias is not constant"
    if activation is not None and weight is not None and activation.scales and output.scales:
        ratio = activation.scales[0] * max(weight.scales, default=0.0) / output.scales[0]
        if ratio >= _MOST_RATIO:
            return f"its scales are too far apart (in * weight / out = {ratio:.3g}, at most {_MOST_RATIO:g})"
    return "XNNPACK has no kernel for it in this form"


def _moved_precision(operator: FileOperator, kind: str, loaded: _Loaded) -> LayerPrecision:
    """Of an operator that is no convolution or matrix product: its output's type."""
    if kind in _MOVES or not operator.outputs:
        return LayerPrecision.OTHER
    dtype = loaded.file.tensors[operator.outputs[0]].dtype
    if dtype in _BYTES:
        return LayerPrecision.INT8
    return LayerPrecision.FLOAT if dtype in _FLOATS else LayerPrecision.OTHER


def _remarks(loaded: _Loaded, layers: Sequence[LayerAudit]) -> tuple[str, ...]:
    """What a list of layers does not show at a glance."""
    pairs = [
        (number, loaded.tensor(loaded.file.operators[number], _COMPUTE[kind].weight))
        for number, kind in enumerate(loaded.names)
        if kind in _COMPUTE
    ]
    integer = [(number, weight) for number, weight in pairs if weight is not None and weight.dtype in _BYTES]
    if not integer:
        return ()
    text = undefined_warning(len(undefined_operators(loaded.file, loaded.taken)))
    remarks = [text] if text else []
    dynamic = sum(layers[number].reason.startswith("dynamic range") for number, _ in integer)
    if dynamic:
        remarks.append(
            f"{dynamic} of {len(pairs)} convolutions and matrix products have INT8 weights but float "
            "activations (dynamic range): this is not an INT8 model; calibrate it with 'edgeq quantize'"
        )
    coarse = sum(len(weight.scales) == 1 and _channels(weight) > 1 for _, weight in integer)
    if coarse:
        remarks.append(
            f"{coarse} of {len(integer)} INT8 weights have one scale for all channels (per tensor), which "
            "often costs points of accuracy; 'edgeq quantize' gives each channel its own"
        )
    left = sum(
        layers[number].precision is LayerPrecision.INT8 and number not in loaded.taken for number, _ in pairs
    )
    if left and loaded.xnnpack:
        remarks.append(
            f"{left} INT8 convolutions and matrix products run on TFLite's own slower kernels, not XNNPACK"
        )
    return tuple(remarks)


def _channels(weight: FileTensor) -> int:
    """Output channels: the first axis, or the last of a depthwise weight (1, h, w, c)."""
    if not weight.shape:
        return 1
    return weight.shape[-1] if weight.shape[0] == 1 and len(weight.shape) == 4 else weight.shape[0]
