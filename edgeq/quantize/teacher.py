"""The QDQ model with every layer fed exact inputs: errors that are each layer's own.

Each convolution and matrix product of the QDQ model gets as input what the float model's layers made,
rounded on the way as the plan says. Errors do not accumulate, so one run per image gives every
layer's own noise and its own mean error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common

from edgeq.quantize.graph import is_layer, node_name
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.local_error import noise_to_signal
from edgeq.quantize.observe import session_with_outputs
from edgeq.quantize.ort import cpu_session, in_parallel
from edgeq.types import Float32Array

__all__ = ["LayerError", "layer_errors", "merge_errors"]

_EXACT = "__exact"


@dataclass(frozen=True)
class LayerError:
    """One layer's own error with exact inputs."""

    node: str
    noise: float
    """Noise-to-signal ratio at its output, before the output itself is rounded."""
    mean_error: Float32Array
    """(output channels,) mean of rounded minus exact."""
    image_count: int


def layer_errors(
    model: ir.Model,
    qdq: ir.Model,
    images: Sequence[Float32Array],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, LayerError]:
    """Own error of every convolution and matrix product with constant weights, by node name.

    Args:
        model: normalised float model.
        qdq: QDQ model made from it.
        images: pre-processed calibration inputs.
        progress: called with (images done, images).
    """
    if not images:
        return {}
    layers = {node_name(node): node.outputs[0].name or "" for node in model.graph if is_layer(node)}
    exact_session, input_name, names = session_with_outputs(model, layers.values(), blocked=True)
    forced = _forced_session(qdq, set(layers.values()))
    wanted = {entry.name for entry in forced.get_inputs()}

    def measure(image: Float32Array) -> dict[str, tuple[float, Float32Array]]:
        exact = dict(zip(names, exact_session.run(names, {input_name: image}), strict=True))
        feed = {f"{name}{_EXACT}": value for name, value in exact.items() if f"{name}{_EXACT}" in wanted}
        if input_name in wanted:
            feed[input_name] = image
        rounded = dict(zip(names, forced.run(names, feed), strict=True))
        return {
            node: (noise_to_signal(exact[out], rounded[out]), _channel_mean(rounded[out] - exact[out]))
            for node, out in layers.items()
        }

    noise = dict.fromkeys(layers, 0.0)
    means: dict[str, Float32Array] = {}
    for done, measured in enumerate(in_parallel(measure, images), start=1):
        for node, (ratio, mean) in measured.items():
            noise[node] += ratio
            means[node] = means.get(node, np.float32(0)) + mean
        if progress is not None:
            progress(done, len(images))
    count = len(images)
    return {
        node: LayerError(node, noise[node] / count, (means[node] / count).astype(np.float32), count)
        for node in layers
    }


def merge_errors(
    first: Mapping[str, LayerError], second: Mapping[str, LayerError]
) -> Mapping[str, LayerError]:
    """Errors of the same layers of one QDQ model over the images of both."""
    return {name: _merged(error, second[name]) if name in second else error for name, error in first.items()}


def _merged(first: LayerError, second: LayerError) -> LayerError:
    count = first.image_count + second.image_count
    share = np.float32(second.image_count / count)
    noise = first.noise + float(share) * (second.noise - first.noise)
    mean = first.mean_error + share * (second.mean_error - first.mean_error)
    return LayerError(first.node, noise, mean, count)


def _channel_mean(values: Float32Array) -> Float32Array:
    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
    return np.asarray(values.mean(axis=axes), np.float32)


def _forced_session(qdq: ir.Model, cut: set[str]) -> ort.InferenceSession:
    """The QDQ model whose layer outputs end there; what read them reads a new input instead."""
    forced = qdq.clone()
    graph = forced.graph
    layers = [node for node in graph if node.outputs[0].name in cut]
    graph.outputs.clear()
    for node in layers:
        output = node.outputs[0]
        uses = list(output.uses())
        if uses:
            exact = ir.Value(
                name=f"{output.name}{_EXACT}", type=ir.TensorType(ir.DataType.FLOAT), shape=output.shape
            )
            graph.inputs.append(exact)
            for use in uses:
                use.node.replace_input_with(use.idx, exact)
        graph.outputs.append(output)
    common.RemoveUnusedNodesPass()(forced)
    for value in list(graph.inputs):
        if not value.uses():
            graph.inputs.remove(value)
    # Every layer ends in a float output, so none of them has an integer kernel.
    return cpu_session(model_bytes(forced), integer_kernels=False, planned=False)
