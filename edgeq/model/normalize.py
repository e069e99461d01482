"""The source graph in the one form that the quantiser knows, proven to compute the same.

What varies between exporters ends here: opset, constants computed by nodes, batch norm, symbolic
shapes, missing names. Folding is done by ONNX Runtime's basic optimisation level, which keeps to
standard operators; everything is then compared with the untouched source.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.version_converter
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common

from edgeq.errors import ModelError, SpecError
from edgeq.machine import core_count
from edgeq.model.focus import fold_focus

__all__ = ["MIN_OPSET", "Parity", "normalise"]

MIN_OPSET = 13
"""QuantizeLinear and DequantizeLinear take an axis, which per-channel scales need, from here on."""

_PARITY_SCALES = (1.0, 255.0)
"""Random images in 0..1 and in 0..255: whatever range the model was trained on."""
_TOLERANCE = 5e-4
"""Of the output's largest magnitude: float32 rounding in another order of operations, no more."""
_QUANTISED_OPS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


@dataclass(frozen=True)
class Parity:
    """Largest difference between source and normalised graph, over all outputs."""

    max_abs_error: float
    max_relative_error: float
    """Relative to the largest magnitude of the output."""
    source_opset: int
    opset: int


def normalise(model: onnx.ModelProto, *, input_name: str, input_shape: Sequence[int]) -> tuple[bytes, Parity]:
    """Normalised model and its parity with the source.

    Requires a valid model with one input. Ensures opset :data:`MIN_OPSET` or later, static shapes,
    named nodes, constants as initializers, folded batch norm, float32 compute; names, shapes and
    meaning of inputs and outputs are the source's. The argument is not changed.

    Raises:
        ModelError: an operator that ONNX Runtime cannot run, a float16 model, or parity not reached.
        SpecError: the size does not fit the graph.
    """
    source = copy.deepcopy(model)
    source_opset = _opset(source)
    _fix_shapes(source, input_name, input_shape)
    _check_dtype(source)
    upgraded = _upgrade(source, source_opset)
    folded = ir.serde.deserialize_model(onnx.load_from_string(_fold(upgraded)))
    _tidy(folded)
    data = bytes(ir.serde.serialize_model(folded).SerializeToString())
    parity = _parity(source.SerializeToString(), data, source_opset, folded.graph.opset_imports.get("", 0))
    if parity.max_relative_error > _TOLERANCE:
        raise ModelError(
            f"the normalised graph differs from the source by {parity.max_abs_error:.3g} "
            f"({parity.max_relative_error:.2g} of the output's magnitude)",
            fix="please report it with the model; exporting with opset 17 may help",
        )
    return data, parity


def _opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in _STANDARD_DOMAINS]
    return max(versions, default=0)


def _fix_shapes(model: onnx.ModelProto, input_name: str, shape: Sequence[int]) -> None:
    """Concrete input shape; symbolic shapes inside are inferred anew from it."""
    for value in model.graph.input:
        if value.name != input_name:
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if dim.HasField("dim_value") and dim.dim_value > 0 and dim.dim_value != size:
                raise SpecError(
                    f"input {input_name!r} is fixed to {dim.dim_value} where {size} was asked for",
                    fix="leave out --imgsz, or export the model at that size",
                )
            dim.Clear()
            dim.dim_value = size
    del model.graph.value_info[:]
    for output in model.graph.output:
        if any(not dim.HasField("dim_value") for dim in output.type.tensor_type.shape.dim):
            output.type.tensor_type.ClearField("shape")


def _check_dtype(model: onnx.ModelProto) -> None:
    half = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    if half or model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
        raise ModelError(
            "the model is in float16; calibration needs the float32 weights",
            fix="export it without half=True",
        )
    entry = model.graph.input[0].type.tensor_type.elem_type
    if entry != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(entry).lower()
        raise ModelError(
            f"the input is {name}; edgeq takes models with a float32 image input", fix="export it with one"
        )
    if any(node.op_type in _QUANTISED_OPS for node in model.graph.node):
        raise ModelError(
            "the model is already quantised",
            fix="give the float model; `edgeq evaluate` and `audit` take this one",
        )


def _upgrade(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    if opset >= MIN_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, MIN_OPSET)
    except Exception as error:  # the converter raises bare RuntimeErrors and ConvertErrors
        raise ModelError(
            f"the model's opset {opset} cannot be upgraded to {MIN_OPSET}: {error}",
            fix=f"export it with opset {MIN_OPSET} or later",
        ) from error


def _fold(model: onnx.ModelProto) -> bytes:
    """ONNX Runtime's basic optimisations, back as ONNX."""
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        target = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4
        try:
            ort.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                # Moved transposes would hide the patterns that the quantiser looks for.
                disabled_optimizers=["TransposeOptimizer"],
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"ONNX Runtime cannot load the model: {reason}", fix="export it again"
            ) from error
        return target.read_bytes()


def _tidy(model: ir.Model) -> None:
    """Standard domains only, constants as initializers, unique node names, known shapes."""
    used = {node.domain for node in model.graph}
    foreign = used - _STANDARD_DOMAINS
    if foreign:
        ops = sorted({f"{n.domain}::{n.op_type}" for n in model.graph if n.domain in foreign})
        raise ModelError(
            f"operators outside standard ONNX: {', '.join(ops)}",
            fix="export the model without custom operators",
        )
    for domain in set(model.graph.opset_imports) - _STANDARD_DOMAINS:
        del model.graph.opset_imports[domain]
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.ShapeInferencePass()(model)
    fold_focus(model)
    common.RemoveUnusedNodesPass()(model)
    seen: set[str] = set()
    for index, node in enumerate(model.graph):
        name = node.name or f"{node.op_type}_{index}"
        node.name = name if name not in seen else f"{name}_{index}"
        seen.add(node.name)
    common.ShapeInferencePass()(model)


def _parity(source: bytes, normalised: bytes, source_opset: int, opset: int) -> Parity:
    """Compare both graphs, the source unoptimised, on random images in and around the input's range."""
    reference, candidate = _plain_session(source), _plain_session(normalised)
    entry = reference.get_inputs()[0]
    names = [output.name for output in reference.get_outputs()]
    if names != [output.name for output in candidate.get_outputs()]:
        raise ModelError("the model's outputs changed while it was normalised", fix="please report it")
    generator = np.random.default_rng(0)
    worst_absolute = worst_relative = 0.0
    for scale in _PARITY_SCALES:
        tensor = generator.random(entry.shape, dtype=np.float32) * np.float32(scale)
        pairs = zip(_run(reference, names, tensor), _run(candidate, names, tensor), strict=True)
        for expected, got in pairs:
            absolute, relative = _difference(np.asarray(expected, np.float64), np.asarray(got, np.float64))
            worst_absolute, worst_relative = max(worst_absolute, absolute), max(worst_relative, relative)
    return Parity(worst_absolute, worst_relative, source_opset, opset)


def _run(session: ort.InferenceSession, names: list[str], tensor: npt.NDArray[np.float32]) -> list[Any]:
    try:
        return list(session.run(names, {session.get_inputs()[0].name: tensor}))
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = str(error).strip().splitlines()[0]
        raise SpecError(
            f"the model does not run with an input of {list(tensor.shape)}: {reason}",
            fix="give the size that it was made for (--imgsz), or export it at this size",
        ) from error


def _difference(expected: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(largest difference, the same relative to the largest magnitude); infinite where NaN differs."""
    finite = np.isfinite(expected)
    if expected.shape != got.shape or not np.array_equal(finite, np.isfinite(got)):
        return float("inf"), float("inf")
    absolute = float(np.max(np.abs(expected[finite] - got[finite]), initial=0.0))
    return absolute, absolute / max(float(np.max(np.abs(expected[finite]), initial=0.0)), 1e-6)


def _plain_session(data: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = core_count()
    options.log_severity_level = 4
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
