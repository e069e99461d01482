"""What rounding one tensor does to the layers that read it, measured on images.

A range is good when the convolutions behind it still compute the same, not when the tensor itself
is close: errors of channels that a depthwise convolution amplifies, and errors that do not average
out (a clipped floor under thousands of values), weigh more there. So a candidate range is judged on
the float values of real images, through the operations up to the next convolutions and their
activations, in one small model per tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from edgeq.quantize.graph import activation_output, node_name, users
from edgeq.quantize.grid import Affine, ChannelAffine, fake_quantize, qdq_domain
from edgeq.quantize.ort import cpu_session
from edgeq.types import COMPUTE_OPS, Float32Array

__all__ = ["LocalModel", "noise_to_signal"]

_MOST_NODES = 64
"""A region that does not end at convolutions within so many nodes is judged at the tensor itself."""
_VARIANCE_FLOOR = 1e-2
"""Of the mean channel's variance: keeps near-constant channels from deciding everything."""


@dataclass(frozen=True)
class _Region:
    nodes: tuple[ir.Node, ...]
    outputs: tuple[str, ...]
    side_inputs: tuple[str, ...]


class LocalModel:
    """One tensor, rounded, and what its readers make of it."""

    def __init__(self, model: ir.Model, tensor: ir.Value, stop: set[ir.Node], dtype: str) -> None:
        """Build the small model.

        Args:
            model: float model, not changed.
            tensor: the value to round.
            stop: nodes that the region must not enter (the float tail).
            dtype: integer type of the grid: ``uint8``, ``int8``, ``int16``.
        """
        self.tensor = tensor.name or ""
        self._region = _region(tensor, stop)
        self._dtype = np.dtype(dtype)
        self._session: ort.InferenceSession | None = None
        if self._region is not None:
            small = _small_model(model, tensor, self._region, dtype)
            self._session = cpu_session(small, keep_memory=False)

    @property
    def needed(self) -> tuple[str, ...]:
        """Tensors whose float values :meth:`error` wants."""
        region = self._region
        return (self.tensor,) if region is None else (self.tensor, *region.side_inputs, *region.outputs)

    def error(
        self, values: Mapping[str, Float32Array], grids: Sequence[Affine | ChannelAffine]
    ) -> npt.NDArray[np.float64]:
        """Noise-to-signal ratio of each candidate grid on one image, (candidates,).

        Args:
            values: float values of the :attr:`needed` tensors for this image.
            grids: candidate scales and zero points for the tensor.
        """
        outputs = (self.tensor,) if self._region is None else self._region.outputs
        signals = [_Signal.of(values[name]) for name in outputs]
        return np.asarray([self._error(values, grid, signals) for grid in grids])

    def _error(
        self,
        values: Mapping[str, Float32Array],
        grid: Affine | ChannelAffine,
        signals: Sequence[_Signal],
    ) -> float:
        if self._session is None or self._region is None:
            rounded = [np.asarray(fake_quantize(values[self.tensor], grid), np.float32)]
        else:
            feed: dict[str, npt.NDArray[Any]] = {
                n: values[n] for n in (self.tensor, *self._region.side_inputs)
            }
            feed["_scale"] = np.asarray(grid.scale, np.float32)
            feed["_zero"] = np.asarray(grid.zero_point, self._dtype)
            rounded = self._session.run(list(self._region.outputs), feed)
        return float(np.mean([signal.noise(output) for signal, output in zip(signals, rounded, strict=True)]))


@dataclass(frozen=True)
class _Signal:
    """An exact tensor as rows of channels, with the variance of each."""

    rows: Float32Array
    """(channels, positions)"""
    variance: npt.NDArray[np.float64]

    @classmethod
    def of(cls, exact: Float32Array) -> _Signal:
        # A vector of logits or features has one position per channel: there the channels are the population.
        if exact.ndim >= 3 and exact.shape[0] == 1:
            rows = exact.reshape(exact.shape[1], -1)
        else:
            rows = exact.reshape(1, -1)
        means = rows.mean(axis=1)
        variance = np.maximum(_mean_square(rows) - means.astype(np.float64) ** 2, 0.0)
        return cls(rows, variance)

    def noise(self, rounded: Float32Array) -> float:
        difference = rounded.reshape(self.rows.shape) - self.rows
        floor = _VARIANCE_FLOOR * float(self.variance.mean()) + 1e-12
        return float(np.mean(_mean_square(difference) / (self.variance + floor)))


def _mean_square(rows: Float32Array) -> npt.NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", rows, rows) / rows.shape[1], np.float64)


def noise_to_signal(exact: Float32Array, rounded: Float32Array) -> float:
    """Mean over channels of ``E[(rounded - exact)^2] / Var[exact]``; axis 1 is the channel axis."""
    return _Signal.of(exact).noise(rounded)


def _region(tensor: ir.Value, stop: set[ir.Node]) -> _Region | None:
    """The nodes from a tensor to the outputs of the next convolutions, activations included."""
    nodes: dict[ir.Node, None] = {}
    ends: dict[str, None] = {}
    stack = list(users(tensor))
    while stack:
        node = stack.pop()
        if node in nodes or node in stop:
            continue
        nodes[node] = None
        if len(nodes) > _MOST_NODES:
            return None
        if node.op_type in COMPUTE_OPS:
            behind, end = activation_output(node.outputs[0])
            inside = [other for other in behind if other not in stop]
            if len(inside) < len(behind):
                end = node.outputs[0]
            nodes.update(dict.fromkeys(inside if len(inside) == len(behind) else []))
            ends[end.name or ""] = None
            continue
        for value in node.outputs:
            stack += users(value)
    if not ends:
        return None
    kept = _needed_for(ends, nodes)
    made = {value.name for node in kept for value in node.outputs}
    read = {
        value for node in kept for value in node.inputs if value is not None and value.const_value is None
    }
    side = sorted(v.name for v in read if v.name not in made and v is not tensor and v.name)
    return _Region(tuple(kept), tuple(ends), tuple(side))


def _needed_for(ends: Mapping[str, None], nodes: Mapping[ir.Node, None]) -> list[ir.Node]:
    """The nodes that the ends depend on."""
    by_output = {value.name: node for node in nodes for value in node.outputs}
    needed: dict[ir.Node, None] = {}
    stack = [by_output[name] for name in ends if name in by_output]
    while stack:
        node = stack.pop()
        if node in needed:
            continue
        needed[node] = None
        stack += [by_output[v.name] for v in node.inputs if v is not None and v.name in by_output]
    return list(needed)


def _small_model(model: ir.Model, tensor: ir.Value, region: _Region, dtype: str) -> bytes:
    """Serialised model: tensor -> QuantizeLinear -> DequantizeLinear -> region."""
    grid_type, domain = ir.DataType[dtype.upper()], qdq_domain(dtype)
    values: dict[str, ir.Value] = {}
    for name in (tensor.name or "", *region.side_inputs):
        values[name] = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT))
    # Of unknown rank: one scale, or one for each channel.
    scale = ir.Value(name="_scale", type=ir.TensorType(ir.DataType.FLOAT))
    zero = ir.Value(name="_zero", type=ir.TensorType(grid_type))
    graph_inputs = [*values.values(), scale, zero]
    axis = {"axis": 1}
    quantise = ir.node(
        "QuantizeLinear", [values[tensor.name or ""], scale, zero], axis, name="_q", domain=domain
    )
    restore = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero], axis, name="_dq", domain=domain)
    values[tensor.name or ""] = restore.outputs[0]
    initializers: dict[str, ir.Value] = {}
    nodes = [quantise, restore]
    order = {node: index for index, node in enumerate(model.graph)}
    for node in sorted(region.nodes, key=order.__getitem__):
        inputs = [_mapped(value, values, initializers) for value in node.inputs]
        copy = ir.Node(
            node.domain, node.op_type, inputs, list(node.attributes.values()),
            num_outputs=len(node.outputs), name=node_name(node),
        )  # fmt: skip
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            values[old.name or ""] = new
        nodes.append(copy)
    outputs = [values[name] for name in region.outputs]
    graph = ir.Graph(
        graph_inputs, outputs, nodes=nodes, initializers=list(initializers.values()),
        opset_imports={**model.opset_imports, **({domain: 1} if domain else {})}, name="local",
    )  # fmt: skip
    return bytes(ir.serde.serialize_model(ir.Model(graph, ir_version=model.ir_version)).SerializeToString())


def _mapped(
    value: ir.Value | None, values: dict[str, ir.Value], initializers: dict[str, ir.Value]
) -> ir.Value | None:
    if value is None or value.name is None:
        return None
    if value.const_value is None:
        return values[value.name]
    if value.name not in initializers:
        tensor = value.const_value
        initializers[value.name] = ir.Value(
            name=value.name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=value.shape
        )
    return initializers[value.name]
