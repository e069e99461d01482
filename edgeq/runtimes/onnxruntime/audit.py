"""Which layers really run in INT8: the kernels that ONNX Runtime chose, matched with the model's nodes.

The optimised graph tells, as ONNX Runtime itself writes it after all its fusions. Where the ``onnx`` package
is not installed (a board), the profile of one inference lists the same kernels, under ONNX Runtime's names.

ONNX Runtime names a fused node after an op or a tensor of the model (``Conv_41_token_9``,
``/model.0/conv/Conv_output_0_nchwc``), so a kernel is matched by its name, else by what it writes.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import ModelError
from edgeq.runtimes.base import AuditReport, LayerAudit, LayerPrecision, SessionOptions
from edgeq.runtimes.onnxruntime.native import PROVIDER, import_onnxruntime, one_line, session_options
from edgeq.runtimes.onnxruntime.session import open_session
from edgeq.types import COMPUTE_OPS

__all__ = ["audit"]

_INTEGER = {
    "QLinearConv": "Conv",
    "ConvInteger": "Conv",
    "QGemm": "Gemm",
    "QLinearMatMul": "MatMul",
    "MatMulInteger": "MatMul",
    "MatMulInteger16": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
    "DynamicQuantizeMatMul": "MatMul",
    "MatMulNBits": "MatMul",
    "QAttention": "MatMul",
}
"""Integer kernel of a convolution or matrix product -> its ONNX op."""
_FLOAT = {
    "Conv": "Conv",
    "FusedConv": "Conv",
    "NhwcConv": "Conv",
    "NhwcFusedConv": "Conv",
    "Gemm": "Gemm",
    "FusedGemm": "Gemm",
    "MatMul": "MatMul",
    "FusedMatMul": "MatMul",
    "TransposeMatMul": "MatMul",
    "ConvTranspose": "ConvTranspose",
}
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_MOVES = frozenset(
    {
        *("Cast", "Constant", "ConstantOfShape", "Identity", "Shape", "ReorderInput", "ReorderOutput"),
        *("Concat", "Expand", "Flatten", "Gather", "Pad", "Reshape", "Resize", "Slice", "Split", "Squeeze"),
        *("Tile", "Transpose", "Unsqueeze", "Upsample", "MaxPool", "NhwcMaxPool"),
    }
)
"""Ops that compute nothing, or only select: their type is their input's."""
_OWN_WEIGHTS = "float in the model: ONNX Runtime rounded its weight itself, with one scale per tensor"
"""Its pass WeightBiasQuantization does so to a float layer between DequantizeLinear and QuantizeLinear."""
_DECORATION = re.compile(r"^fused |(_token_\d+|_nchwc|_nhwc)$")


@dataclass(frozen=True)
class _Kernel:
    """A node of the optimised graph."""

    name: str
    op: str
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """A convolution or matrix product of the artifact."""

    name: str
    op: str
    why_float: str
    """What in the artifact keeps a runtime from running it in INT8; empty: nothing does."""


def audit(
    artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
) -> AuditReport:
    """The precision of each layer as ONNX Runtime runs it.

    Args:
        artifact: any ``.onnx`` file.
        options: as it will be run.
        reasons: node name -> why the plan keeps it in float.

    Raises:
        ModelError: ONNX Runtime cannot load the file.
        UnavailableError: onnxruntime is not installed.
    """
    session = open_session(artifact, options)
    known = importlib.util.find_spec("onnx") is not None
    sources = _sources(artifact) if known else {}
    kernels = _optimised(artifact, options) if known else _profiled(artifact, options)
    layers = tuple(_layer(kernel, sources, reasons or {}) for kernel in kernels)
    told_by = "optimised graph" if known else "profile of one inference (the package onnx is not installed)"
    return AuditReport("onnxruntime", layers, {**session.details, "told_by": told_by})


def _optimised(artifact: Path, options: SessionOptions) -> list[_Kernel]:
    """Nodes of the graph that ONNX Runtime saves after its last optimisation."""
    import onnx

    ort = import_onnxruntime()
    with tempfile.TemporaryDirectory(prefix="edgeq-audit-") as folder:
        saved = Path(folder) / "optimised.onnx"
        chosen = session_options(options)
        chosen.optimized_model_filepath = str(saved)
        try:
            ort.InferenceSession(str(artifact), chosen, providers=[PROVIDER])
            graph = onnx.load(str(saved), load_external_data=False).graph
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelError(
                f"the optimised graph of {artifact.name} cannot be had: {one_line(error)}"
            ) from error
        return [_Kernel(node.name, node.op_type, tuple(node.output)) for node in graph.node]


def _profiled(artifact: Path, options: SessionOptions) -> list[_Kernel]:
    """Kernels of one inference, in the order in which they ran."""
    session = open_session(artifact, options)
    info = session.inputs[0]
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in info.shape]
    ran = session.profile(np.zeros(shape, np.dtype(info.dtype)), runs=1)
    return [_Kernel(layer.name, layer.kernel) for layer in ran]


def _layer(kernel: _Kernel, sources: Mapping[str, _Source], reasons: Mapping[str, str]) -> LayerAudit:
    """The kernel with the name of its source node and, where it is float, the reason."""
    op = _INTEGER.get(kernel.op) or _FLOAT.get(kernel.op)
    if op is None:
        return LayerAudit(kernel.name, _plain_op(kernel.op), _precision(kernel.op), kernel.op)
    source = _match(kernel, sources)
    name = source.name if source is not None else _bare(kernel.name)
    if kernel.op in _INTEGER:
        own = _OWN_WEIGHTS if source is not None and "weight" in source.why_float else ""
        return LayerAudit(name, source.op if source else op, LayerPrecision.INT8, kernel.op, own)
    reason = reasons.get(name) or (source.why_float if source is not None else "")
    if not reason and source is not None:
        reason = (
            "its inputs, weight and output are quantised, but ONNX Runtime has not fused them into one kernel"
        )
    return LayerAudit(name, source.op if source else op, LayerPrecision.FLOAT, kernel.op, reason)


def _precision(op: str) -> LayerPrecision:
    """Of a kernel that is no convolution or matrix product."""
    if op in _QDQ or op in _MOVES:
        return LayerPrecision.OTHER
    return LayerPrecision.INT8 if op.startswith("QLinear") else LayerPrecision.FLOAT


def _plain_op(op: str) -> str:
    return op.removeprefix("QLinear").removeprefix("Nhwc")


def _match(kernel: _Kernel, sources: Mapping[str, _Source]) -> _Source | None:
    for key in (kernel.name, _bare(kernel.name), *kernel.outputs, *map(_bare, kernel.outputs)):
        if key in sources:
            return sources[key]
    return None


def _bare(name: str) -> str:
    """The name without what ONNX Runtime added to it, layer by layer."""
    while (shorter := _DECORATION.sub("", name)) != name:
        name = shorter
    return name


def _sources(artifact: Path) -> dict[str, _Source]:
    """Node names and names of the tensors that a fused kernel may write -> the node."""
    import onnx

    graph = onnx.load(str(artifact), load_external_data=False).graph
    producers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, _Source] = {}
    for node in graph.node:
        if node.op_type not in COMPUTE_OPS:
            continue
        behind = list(_behind(node, readers))
        name = node.name or node.output[0]
        source = _Source(name, node.op_type, _why_float(node, behind, producers, readers))
        found[name] = source
        for entry in (node, *behind):
            found.setdefault(entry.output[0], source)
    return found


def _behind(node: Any, readers: Mapping[str, list[Any]]) -> Iterable[Any]:
    """What a kernel may take in behind a node: ops of one input that alone read it, up to Q and DQ."""
    while True:
        after = readers.get(node.output[0], [])
        if len(after) != 1 or after[0].op_type in COMPUTE_OPS or after[0].input[0] != node.output[0]:
            return
        node = after[0]
        yield node
        if node.op_type == "DequantizeLinear":
            return


def _why_float(
    node: Any, behind: list[Any], producers: Mapping[str, Any], readers: Mapping[str, list[Any]]
) -> str:
    """What the graph itself says: which of input, weight and output is not quantised."""
    missing = [
        what
        for what, name in zip(("input", "weight"), node.input)  # noqa: B905 (boards may have Python 3.9)
        if name not in producers or producers[name].op_type != "DequantizeLinear"
    ]
    if len(missing) == 2:
        return "not quantised in the model"
    last = behind[0] if behind and behind[0].op_type in ("Relu", "Clip") else node
    after = readers.get(last.output[0], [])
    if not after or any(entry.op_type != "QuantizeLinear" for entry in after):
        missing.append("output")
    return (
        f"its {' and its '.join(missing)} {'is' if len(missing) == 1 else 'are'} not quantised"
        if missing
        else ""
    )
