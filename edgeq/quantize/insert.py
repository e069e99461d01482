"""The plan written into the graph: standard ONNX with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.quantize.graph import add_constant, constant_array, node_name, weight_axis
from edgeq.quantize.grid import Affine, ChannelAffine, qdq_domain
from edgeq.quantize.plan import Plan, TensorPlan
from edgeq.quantize.recipe import Precision
from edgeq.quantize.weights import QuantisedWeight, quantize_bias, quantize_weight, smallest_weight_scale
from edgeq.types import COMPUTE_OPS

__all__ = ["insert_qdq", "model_bytes"]

_CONSTANT_INPUT_OPS = frozenset({"Add", "Mul", "Sub", "Div", "Concat"})


def insert_qdq(model: ir.Model, plan: Plan) -> ir.Model:
    """The QDQ model.

    Requires a normalised float model and a plan made for it. Ensures that every INT8 op reads and
    writes through a pair, that its constants are int8 (bias int32, or float where the plan says so), that
    the weights of float layers are int8 where the plan says so, and that inputs and outputs of the model
    are unchanged. The argument is not changed.
    """
    result = model.clone()
    graph = result.graph
    nodes = list(graph)
    int8 = {node for node in nodes if plan.ops[node_name(node)].precision is Precision.INT8}
    for node in nodes:
        shift = plan.bias_shifts.get(node_name(node))
        if shift is not None:
            _shift_bias(graph, node, np.asarray(shift, np.float32))
        if node in int8:
            _quantise_constants(graph, node, plan)
        elif node_name(node) in plan.stored_weights:
            _quantise_weight(graph, node, plan)
    values = {value.name: value for value in [*graph.inputs, *(v for node in nodes for v in node.outputs)]}
    for name, tensor in plan.tensors.items():
        _insert_pair(graph, values[name], tensor, int8, first=nodes[0])
    _drop_unused_constants(graph)
    return result


def model_bytes(model: ir.Model) -> bytes:
    """Serialised ONNX."""
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def _drop_unused_constants(graph: ir.Graph) -> None:
    """The float weights that int8 ones stand for would otherwise be shipped too."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _insert_pair(
    graph: ir.Graph, value: ir.Value, tensor: TensorPlan, int8: set[ir.Node], *, first: ir.Node
) -> None:
    """Q/DQ behind a value, for the readers that want the rounded one.

    Behind an INT8 op only the rounded value exists, so every reader takes it. Behind a float op the
    float readers keep the exact one.
    """
    producer = value.producer()
    uses = [use for use in value.uses() if use.node in int8 or producer in int8]
    becomes_output = value.is_graph_output() and producer in int8
    if not uses and not becomes_output:
        return
    name = value.name or ""
    scale, zero = _grid_constants(graph, name, tensor.channels or tensor.grid)
    axis = {"axis": 1} if tensor.channels else {}
    domain = _domain(graph, tensor.grid.dtype.value)
    quantise = ir.node(
        "QuantizeLinear", [value, scale, zero], axis, name=f"{name}_QuantizeLinear", domain=domain
    )
    quantise.outputs[0].name = f"{name}_quantized"
    restore = ir.node(
        "DequantizeLinear",
        [quantise.outputs[0], scale, zero],
        axis,
        name=f"{name}_DequantizeLinear",
        domain=domain,
    )
    restored = restore.outputs[0]
    restored.name, restored.type, restored.shape = f"{name}_dequantized", value.type, value.shape
    if producer is None:
        graph.insert_before(first, [quantise, restore])
    else:
        graph.insert_after(producer, [quantise, restore])
    for use in uses:
        use.node.replace_input_with(use.idx, restored)
    if becomes_output:
        # The output keeps its name; what the op makes before rounding gets another.
        value.name, restored.name = f"{name}_exact", name
        graph.outputs[list(graph.outputs).index(value)] = restored


def _domain(graph: ir.Graph, dtype: str) -> str:
    """Operator set of a pair, made known to the model."""
    domain = qdq_domain(dtype)
    if domain:
        graph.opset_imports.setdefault(domain, 1)
    return domain


def _grid_constants(graph: ir.Graph, name: str, grid: Affine | ChannelAffine) -> tuple[ir.Value, ir.Value]:
    scale = add_constant(graph, f"{name}_scale", np.asarray(grid.scale, np.float32))
    zero = add_constant(graph, f"{name}_zero_point", np.asarray(grid.zero_point, grid.dtype.value))
    return scale, zero


def _shift_bias(graph: ir.Graph, node: ir.Node, shift: npt.NDArray[np.float32]) -> None:
    """Add to the bias; a MatMul has none, so nothing happens there."""
    if node.op_type == "MatMul":
        return
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    corrected = shift if bias is None else bias + shift
    value = add_constant(graph, f"{node_name(node)}_corrected_bias", corrected.astype(np.float32))
    _set_bias(node, value)


def _set_bias(node: ir.Node, value: ir.Value) -> None:
    if len(node.inputs) > 2:
        node.replace_input_with(2, value)
    else:
        node.resize_inputs(3)
        node.replace_input_with(2, value)


def _quantise_constants(graph: ir.Graph, node: ir.Node, plan: Plan) -> None:
    if node.op_type in _CONSTANT_INPUT_OPS:
        _quantise_operands(graph, node, plan.tensors)
        return
    weight = constant_array(node.inputs[1]) if node.op_type in COMPUTE_OPS else None
    if weight is None:
        return
    source = plan.tensors.get(node.inputs[0].name or "") if node.inputs[0] is not None else None
    # The scale of an int32 bias is one input scale times the weight's, so not with a grid per channel.
    whole = source is not None and source.channels is None
    bias = _integer_bias(node, weight) if whole and plan.quantize_bias else None
    smallest = smallest_weight_scale(bias, source.grid.scale) if bias is not None and source else 0.0
    quantised = _quantise_weight(graph, node, plan, smallest)
    if bias is None or source is None:
        return
    bias_scale = np.broadcast_to(np.float32(source.grid.scale) * quantised.scale, bias.shape).astype(
        np.float32
    )
    name = f"{node_name(node)}_bias"
    values = add_constant(graph, f"{name}_quantized", quantize_bias(bias, bias_scale))
    scale = add_constant(graph, f"{name}_scale", bias_scale)
    zero = add_constant(graph, f"{name}_zero_point", np.zeros(bias.shape, np.int32))
    _replace_constant(graph, node, 2, [values, scale, zero], {"axis": 0}, f"{name}_dequantized")


def _quantise_weight(
    graph: ir.Graph, node: ir.Node, plan: Plan, smallest_scale: float | npt.NDArray[np.float64] = 0.0
) -> QuantisedWeight:
    """The weight as int8 behind a DequantizeLinear; the node has a constant one."""
    value = node.inputs[1]
    weight = constant_array(value)
    if value is None or weight is None:
        raise AssertionError(node_name(node))
    quantised = plan.weights.get(node_name(node)) or quantize_weight(
        weight,
        axis=weight_axis(node),
        granularity=plan.granularity,
        method=plan.weight_range,
        bits=plan.weight_bits,
        half_scales=plan.half_scales,
        smallest_scale=smallest_scale,
    )
    name = value.name or node_name(node)
    scale = add_constant(graph, f"{name}_scale", quantised.scale)
    zero = add_constant(graph, f"{name}_zero_point", np.zeros(quantised.scale.shape, np.int8))
    values = add_constant(graph, f"{name}_quantized", quantised.values)
    axis = {"axis": quantised.axis} if quantised.scale.ndim else {}
    _replace_constant(graph, node, 1, [values, scale, zero], axis, f"{name}_dequantized")
    return quantised


def _integer_bias(node: ir.Node, weight: npt.NDArray[Any]) -> npt.NDArray[np.float32] | None:
    """(output channels,) bias that may become int32; None: there is none, or it has to stay float."""
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    attributes = node.attributes
    scaled = attributes.get_float("alpha", 1.0) != 1.0 or attributes.get_float("beta", 1.0) != 1.0
    channels = _bias_channels(node, weight)
    if bias is None or node.op_type == "MatMul" or scaled or bias.size not in (1, channels):
        return None
    return np.broadcast_to(bias.reshape(-1), (channels,)).astype(np.float32)


def _bias_channels(node: ir.Node, weight: npt.NDArray[Any]) -> int:
    group = node.attributes.get_int("group", 1) if node.op_type == "ConvTranspose" else 1
    return int(weight.shape[weight_axis(node)]) * group


def _quantise_operands(graph: ir.Graph, node: ir.Node, tensors: Mapping[str, TensorPlan]) -> None:
    """Constant operands of elementwise ops: exact ends of the grid at their own extremes.

    An op that reads nothing rounded computes in float, with its constants as they are.
    """
    read = [tensors.get(value.name or "") for value in node.inputs if value is not None]
    grid = next((tensor.grid for tensor in read if tensor is not None), None)
    if grid is None:
        return
    made = grid.dtype
    for index, value in enumerate(node.inputs):
        array = constant_array(value)
        if array is None or value is None:
            continue
        low, high = made.limits
        top = max(float(np.max(array)), 0.0)
        bottom = min(float(np.min(array)), 0.0)
        if grid.zero_point == 0 and low < 0:  # a runtime that knows no zero point takes none here either
            top = max(top, -bottom)
            low, bottom = 0, 0.0
        scale_value = np.float32(max((top - bottom) / (high - low), 1e-12))
        zero_value = int(np.clip(round(low - bottom / float(scale_value)), low, high))
        rounded = np.clip(np.rint(array / scale_value) + zero_value, *made.limits).astype(made.value)
        name = f"{value.name}_{index}"
        parts = [
            add_constant(graph, f"{name}_quantized", rounded),
            add_constant(graph, f"{name}_scale", np.asarray(scale_value)),
            add_constant(graph, f"{name}_zero_point", np.asarray(zero_value, made.value)),
        ]
        domain = _domain(graph, made.value)
        _replace_constant(graph, node, index, parts, {}, f"{name}_dequantized", domain=domain)


def _replace_constant(
    graph: ir.Graph,
    node: ir.Node,
    index: int,
    parts: list[ir.Value],
    attributes: Mapping[str, int],
    name: str,
    *,
    domain: str = "",
) -> None:
    restore = ir.node(
        "DequantizeLinear",
        parts,
        attributes=dict(attributes),
        name=f"{node_name(node)}_{name}",
        domain=domain,
    )
    restore.outputs[0].name = f"{node_name(node)}/{name}"
    graph.insert_before(node, restore)
    node.replace_input_with(index, restore.outputs[0])
