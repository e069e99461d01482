"""Depthwise-input equalisation: exact rescaling of the channels that a depthwise convolution reads.

A tensor with one scale for all channels leaves few levels to the channels of small range, and a
depthwise convolution, which sums over no channels, cannot average that out. Since it treats each
channel alone, dividing channel c by s[c] in front of it and multiplying its weights by s[c] changes
nothing but the ranges (Nagel et al. 2019, arXiv:1906.04721, cross-layer equalisation, for the
piecewise linear activations). A SiLU takes one more multiplication per element, and stays exact. Where the
convolution's own output is rounded too, the division goes through the SiLU to the convolution's weights,
``x * sigmoid(x) / s = (x / s) * sigmoid((x / s) * s)``, and the output's grid gains as well; else it stands
behind the SiLU, which stays one operation that a runtime fuses into the convolution.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgeq.model.source import FloatModel
from edgeq.quantize.graph import add_constant, constant_array, is_depthwise, node_name, silu_of, users
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.statistics import Statistics, TensorStatistics
from edgeq.types import Float32Array

__all__ = ["equalize_depthwise"]

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})
"""f(x / s) = f(x) / s for s > 0."""
_LEVELS = 255
"""Factors are multiples of the largest over this, so that an 8-bit constant holds each exactly."""
_HALF_LEVELS = 127
"""Of int8 without a zero point, on either side of 0."""
_SILU_MINIMUM = 0.28


def equalize_depthwise(
    model: FloatModel, statistics: Statistics, *, least_spread: float = 1.0, behind: bool = False
) -> tuple[FloatModel, int]:
    """Equalise the tensors that only depthwise convolutions read.

    Requires statistics of the same model. Ensures outputs equal up to float32 rounding. The arguments
    are not changed.

    Args:
        model: normalised float model.
        statistics: of its calibration set.
        least_spread: by how much one grid for all channels has to raise the noise-to-signal ratio of the
            average channel, ``mean(1 / s[c]^2)``, to be worth a multiplication; 1: always.
        behind: a SiLU is divided behind itself, but for weights that float16 scales would ruin; else through
            it, in the convolution's weights.

    Returns:
        The model, and how many tensors were equalised.
    """
    graph_model = ir.serde.deserialize_model(onnx.load_from_string(model.onnx_bytes))
    count = 0
    for node in list(graph_model.graph):
        count += _equalise(graph_model.graph, node, statistics, least_spread, behind)
    if count == 0:
        return model, 0
    common.ShapeInferencePass()(graph_model)
    return replace(model, onnx_bytes=model_bytes(graph_model)), count


def _equalise(
    graph: ir.Graph, conv: ir.Node, statistics: Statistics, least_spread: float, behind: bool
) -> bool:
    """Equalise the activation of one convolution; False where the pattern does not fit, or it hardly pays."""
    if conv.op_type != "Conv" or constant_array(conv.inputs[1]) is None:
        return False
    value = conv.outputs[0]
    activation, gate = _activation(value)
    read = value if activation is None else activation.outputs[0]
    readers = users(read)
    observed = statistics.tensors.get(read.name or "")
    if (
        not readers
        or observed is None
        or observed.channels is None
        or read.is_graph_output()
        or value.is_graph_output()
    ):
        return False
    if not all(is_depthwise(reader) and reader.inputs[0] is read for reader in readers):
        return False
    factors = _factors(observed, silu=gate is not None)
    if gate is not None and float(np.mean(factors**-2.0)) < least_spread:
        return False
    if gate is not None and behind and not _tiny(conv):
        # A number that float16 holds: a runtime may store it so, and the weights take it back exactly.
        gains = (1.0 / factors).astype(np.float16).astype(np.float32)
        factors = 1.0 / gains
        _multiply(graph, read, gains, readers, name=f"{node_name(conv)}_equalise")
    else:
        _scale_output(graph, conv, 1.0 / factors)
        if gate is not None:
            _multiply(graph, value, factors, [gate], name=f"{node_name(conv)}_restore")
    for reader in readers:
        _scale_weight(graph, reader, np.repeat(factors, _multiplier(reader)))
    return True


def _tiny(conv: ir.Node) -> bool:
    """Whether a channel's weights are so small that float16 has no good scale for their integers.

    The first convolution of a model that takes pixels in 0..255 has such: divided by s they grow.
    """
    weight = constant_array(conv.inputs[1])
    if weight is None:
        return False
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    smallest = _HALF_LEVELS * np.finfo(np.float16).smallest_normal
    return bool(((largest > 0) & (largest < smallest)).any())


def _multiply(
    graph: ir.Graph, value: ir.Value, factors: Float32Array, readers: list[ir.Node], *, name: str
) -> None:
    """These readers get each channel of the value times its factor."""
    constant = add_constant(graph, f"{name}_factors", factors.reshape(1, -1, 1, 1))
    product = ir.node("Mul", [value, constant], name=name)
    product.outputs[0].name = f"{name}d"
    product.outputs[0].type, product.outputs[0].shape = value.type, value.shape
    made = value.producer()
    if made is None:
        raise ValueError(f"no node makes {value.name}")
    graph.insert_after(made, product)
    for reader in readers:
        reader.replace_input_with(0, product.outputs[0])


def _multiplier(depthwise: ir.Node) -> int:
    """Output channels for each input channel."""
    weight = constant_array(depthwise.inputs[1])
    return 1 if weight is None else int(weight.shape[0]) // depthwise.attributes.get_int("group", 1)


def _activation(value: ir.Value) -> tuple[ir.Node | None, ir.Node | None]:
    """(activation, its sigmoid if it is a SiLU); (None, None): the convolution is read itself."""
    readers = users(value)
    if len(readers) == 1 and readers[0].op_type in _HOMOGENEOUS:
        return readers[0], None
    for node in readers:
        found = silu_of(node)
        if found is not None and found[1] is value and set(readers) == {found[0], node}:
            return node, found[0]
    return None, None


def _factors(observed: TensorStatistics, *, silu: bool) -> Float32Array:
    """(c,) in 1/255..1: each channel's usual magnitude relative to the largest."""
    channels = observed.channels
    if channels is None:
        raise ValueError("equalisation needs statistics per channel")
    magnitude = np.maximum(np.abs(channels.mean_high), np.abs(channels.mean_low))
    if silu:
        magnitude = np.maximum(magnitude, _SILU_MINIMUM)
    top = max(float(magnitude.max()), 1e-12)
    return np.asarray(np.clip(np.ceil(magnitude / top * _LEVELS - 1e-3), 1, _LEVELS) / _LEVELS, np.float32)


def _scale_output(graph: ir.Graph, conv: ir.Node, factors: npt.NDArray[np.floating]) -> None:
    _scale_weight(graph, conv, factors)
    bias = constant_array(conv.inputs[2]) if len(conv.inputs) > 2 else None
    if bias is not None:
        scaled = (bias * factors).astype(np.float32)
        conv.replace_input_with(2, add_constant(graph, f"{node_name(conv)}_equalised_bias", scaled))


def _scale_weight(graph: ir.Graph, conv: ir.Node, factors: npt.NDArray[np.floating]) -> None:
    weight = constant_array(conv.inputs[1])
    if weight is None:
        raise ValueError(f"{node_name(conv)} has no constant weight")
    scaled = (weight * factors.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    conv.replace_input_with(1, add_constant(graph, f"{node_name(conv)}_equalised_weight", scaled))
