"""Layers of a built engine as TensorRT describes them, and which of them is a node of the model.

Two sources say the same in two forms: the engine inspector's JSON (TensorRT 10 and 11, on the device) and
the lines of a verbose build log (TensorRT-RTX, on a host without a GPU). A fused layer names the ONNX
nodes that it came from in its metadata: ``[ONNX Layer: Conv_41][ONNX Layer: Sigmoid_42]``. Device side:
standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.runtimes.base import LayerAudit, LayerPrecision

__all__ = ["EngineLayer", "Wanted", "audit_layers", "layers_from_json", "layers_from_log"]

_TYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]\x1e\x1f]+)")
_IGNORED = frozenset({"wait", "signal", "Signal", "Wait", "NoOp", "Constant", "constant"})
_HELPERS = frozenset(
    {"kgen", "pointwise", "PointWise", "PointWiseV2", "Reformat", "reformat", "move", "shuffle"}
)
"""Layer types that compute what surrounds a layer: they count for it only where no other layer does."""


@dataclass(frozen=True)
class EngineLayer:
    """One layer as the engine runs it."""

    name: str
    kind: str
    """TensorRT's layer type: ``correlation``, ``CaskConvolution``, ``kgen``, ..."""
    nodes: tuple[str, ...]
    """ONNX nodes that it came from."""
    inputs: tuple[str, ...]
    """Data types of its inputs in small letters: ``int8``, ``float``, ``half``, ..."""
    weights: tuple[str, ...]
    """Data types of its constants."""
    outputs: tuple[str, ...]

    @property
    def int8(self) -> bool:
        """Whether it multiplies int8 by int8: an input by a constant, or two inputs."""
        return "int8" in self.inputs and ("int8" in self.weights or self.inputs.count("int8") > 1)


@dataclass(frozen=True)
class Wanted:
    """A convolution or matrix product of the model."""

    name: str
    op: str
    why_float: str
    """Why the model or the plan keeps it in float; empty: it is to be INT8."""


def layers_from_log(lines: Iterable[str]) -> tuple[EngineLayer, ...]:
    """Layers that a build with DETAILED profiling verbosity wrote into its log."""
    found = (_from_line(line) for line in lines)
    return tuple(layer for layer in found if layer is not None)


def layers_from_json(text: str) -> tuple[EngineLayer, ...]:
    """Layers that an engine inspector tells; the schemas of TensorRT 10 and 11.

    Raises:
        ValueError: it is not such JSON.
    """
    document = json.loads(text)
    entries = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the engine inspector's answer has no list of layers")
    return tuple(
        _from_entry(entry)
        for entry in entries
        if isinstance(entry, dict) and entry.get("LayerType") not in _IGNORED
    )


def audit_layers(
    layers: Sequence[EngineLayer], wanted: Iterable[Wanted], reasons: Mapping[str, str]
) -> tuple[LayerAudit, ...]:
    """What each convolution and matrix product of the model runs in.

    Args:
        layers: of the engine.
        wanted: the model's.
        reasons: node name -> why the plan keeps it in float.
    """
    by_node: dict[str, list[EngineLayer]] = {}
    for layer in layers:
        for node in layer.nodes:
            by_node.setdefault(node, []).append(layer)
    return tuple(_audit(entry, by_node.get(entry.name, []), reasons) for entry in wanted)


def _audit(entry: Wanted, candidates: Sequence[EngineLayer], reasons: Mapping[str, str]) -> LayerAudit:
    if not candidates:
        return LayerAudit(
            entry.name,
            entry.op,
            LayerPrecision.OTHER,
            "",
            "no layer of the engine names it: it was folded away, or merged without a trace",
        )
    # Bias and activation of an INT8 convolution are float layers of their own that name it too.
    own = [layer for layer in candidates if layer.kind not in _HELPERS] or list(candidates)
    layer = next((layer for layer in own if layer.int8), own[0])
    if layer.int8:
        return LayerAudit(entry.name, entry.op, LayerPrecision.INT8, layer.kind)
    why = reasons.get(entry.name) or entry.why_float
    return LayerAudit(
        entry.name,
        entry.op,
        LayerPrecision.FLOAT,
        layer.kind,
        why or f"quantised in the model, but the engine computes it from {_list(layer.inputs)}",
    )


def _list(types: Sequence[str]) -> str:
    return " and ".join(types) or "an unknown type"


def _from_line(line: str) -> EngineLayer | None:
    """``Name: N, LayerType: T, Inputs: [..], Constants: [..], Outputs: [..], TacticName: .., Metadata: ..``

    Cut at its words from the left: names come from the model, so no pattern is matched against them.
    """
    name, found, rest = line.removeprefix("Name: ").partition(", LayerType: ")
    kind, _, rest = rest.partition(", Inputs: ")
    operands, _, rest = rest.partition(", Outputs: ")
    inputs, _, constants = operands.partition(", Constants: ")
    outputs, _, rest = rest.partition(", TacticName: ")
    if not found or not line.startswith("Name: ") or kind in _IGNORED:
        return None
    return EngineLayer(
        name,
        kind,
        _nodes(rest),
        _types(_TYPE.findall(inputs)),
        _types(_TYPE.findall(constants)),
        _types(_TYPE.findall(outputs)),
    )


def _from_entry(entry: Mapping[str, Any]) -> EngineLayer:
    constants = [_entry_type(value) for value in _entries(entry.get("Constants"))]
    weights = entry.get("Weights")
    if isinstance(weights, dict):
        constants.append(str(weights.get("Type", "")))
    return EngineLayer(
        str(entry.get("Name", "")),
        str(entry.get("LayerType", "")),
        _nodes(str(entry.get("Metadata", ""))),
        _types(_entry_type(value) for value in _entries(entry.get("Inputs"))),
        _types(constants),
        _types(_entry_type(value) for value in _entries(entry.get("Outputs"))),
    )


def _entries(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _entry_type(entry: Mapping[str, Any]) -> str:
    """``Datatype`` in newer versions; older ones have it inside ``Row major Int8 format``."""
    plain = entry.get("Datatype") or entry.get("DataType")
    if plain is not None:
        return str(plain)
    text = str(entry.get("Format/Datatype", "")).lower()
    return next((name for name in ("int8", "fp16", "bf16", "fp32", "fp8", "int32") if name in text), text)


def _types(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names if name)


def _nodes(metadata: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in _NODE.findall(metadata)))
