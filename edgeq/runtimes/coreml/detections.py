"""A detector's predictions as two tensors of boxes and scores, which is what Core ML's NMS takes.

Written into the ONNX model, in front of lowering, so that one way leads from an operator to MIL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_ir import serde
from onnx_ir.passes import common

from edgeq.errors import SpecError
from edgeq.model.decode import cell_counts
from edgeq.types import HeadFamily, HeadSpec, InputSpec

__all__ = ["BOXES", "SCORES", "with_boxes_and_scores"]

BOXES = "raw_coordinates"
SCORES = "raw_confidence"
_PREFIX = "edgeq_nms"


def with_boxes_and_scores(data: bytes, *, head: HeadSpec, spec: InputSpec) -> bytes:
    """The model with the outputs ``raw_coordinates`` and ``raw_confidence`` in place of its own.

    Ensures: coordinates (n, 4) cx, cy, w, h in 0..1 of the input, confidence (n, nc) in 0..1, 0 for all but a
    box's best class. Vision takes the sum over classes for the confidence that there is an object, which is
    not to exceed 1 (``NonMaximumSuppression.proto``); classes that do not exclude each other add up to more.

    Args:
        data: serialised float or QDQ model.
        head: of a family that needs NMS.
        spec: the model's input.

    Raises:
        SpecError: a head whose boxes need no NMS, or an output that does not fit it.
    """
    if head.family not in (HeadFamily.YOLOX, HeadFamily.YOLOV5, HeadFamily.YOLOV8):
        raise SpecError(f"a {head.family.value} head needs no NMS", fix="use the bundle's package as it is")
    model = onnx.load_from_string(data)
    known = {value.name: value for value in model.graph.output}
    if head.output not in known:
        raise SpecError(f"the model has no output {head.output!r}, only {', '.join(map(repr, known))}")
    shape = tuple(size.dim_value for size in known[head.output].type.tensor_type.shape.dim)
    graph = _Graph(model)
    rows, count = _rows(graph, head, shape)
    if head.family is HeadFamily.YOLOV8:
        boxes, scores = graph.columns(rows, 0, 4), graph.columns(rows, 4, 4 + head.class_count)
    else:
        boxes = graph.columns(rows, 0, 4)
        classes = graph.columns(rows, 5, 5 + head.class_count)
        scores = graph.node("Mul", graph.columns(rows, 4, 5), classes)
    if head.family is HeadFamily.YOLOX:
        boxes = _from_cells(graph, boxes, head, spec, count)
    size = np.array([spec.width_px, spec.height_px] * 2, np.float32)
    scale = np.ones(4, np.float32) if head.normalized_boxes else 1 / size
    graph.node("Mul", boxes, graph.constant(scale), output=BOXES)
    best = graph.node("GreaterOrEqual", scores, graph.largest(scores))
    graph.node("Mul", scores, graph.node("Cast", best, to=TensorProto.FLOAT), output=SCORES)
    del model.graph.output[:]
    for name, columns in ((BOXES, 4), (SCORES, head.class_count)):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (count, columns)))
    wide = serde.deserialize_model(model)
    common.RemoveUnusedNodesPass()(wide)
    return bytes(serde.serialize_model(wide).SerializeToString())


def _rows(graph: _Graph, head: HeadSpec, shape: tuple[int, ...]) -> tuple[str, int]:
    """(n, columns), one row for each box, and n."""
    columns = head.class_count + (4 if head.family is HeadFamily.YOLOV8 else 5)
    if len(shape) != 3 or shape[0] != 1 or 0 in shape or columns not in shape[1:]:
        raise SpecError(
            f"output {head.output!r} of shape {shape} does not fit a {head.family.value} head "
            f"with {head.class_count} classes ({columns} values per box)"
        )
    across = shape[1] == columns and (shape[2] != columns or head.family is HeadFamily.YOLOV8)
    count = shape[2] if across else shape[1]
    turned = graph.node("Transpose", head.output, perm=[0, 2, 1]) if across else head.output
    return graph.node("Reshape", turned, graph.constant(np.array([count, columns], np.int64))), count


def _from_cells(graph: _Graph, boxes: str, head: HeadSpec, spec: InputSpec, count: int) -> str:
    """YOLOX: ``(cell + xy) * stride`` and ``exp(wh) * stride``, in pixels."""
    cells = cell_counts(spec.height_px, spec.width_px, head.strides)
    if sum(cells) != count:
        raise SpecError(f"output {head.output!r} has {count} boxes, the strides have {sum(cells)} cells")
    corners, strides = [], []
    for stride in head.strides:
        across = -(-spec.width_px // stride)
        index = np.arange(-(-spec.height_px // stride) * across)
        corners.append(np.stack([index % across, index // across], axis=1))
        strides.append(np.full((len(index), 1), stride))
    corner = graph.constant(np.concatenate(corners).astype(np.float32))
    pitch = graph.constant(np.concatenate(strides).astype(np.float32))
    centre = graph.node("Add", graph.columns(boxes, 0, 2), corner)
    size = graph.node("Exp", graph.columns(boxes, 2, 4))
    return graph.node("Mul", graph.node("Concat", centre, size, axis=1), pitch)


class _Graph:
    """Appends nodes to a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"{_PREFIX}_{self._count}"

    def constant(self, array: np.ndarray[Any, Any]) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = self._name()
        made = output or name
        self._graph.node.append(helper.make_node(kind, list(inputs), [made], name=name, **attributes))
        return made

    def largest(self, value: str) -> str:
        """The largest of each row of a (rows, columns) value, (rows, 1)."""
        if self._opset < 18:
            return self.node("ReduceMax", value, axes=[1])
        return self.node("ReduceMax", value, self.constant(np.array([1], np.int64)))

    def columns(self, value: str, first: int, end: int) -> str:
        """``value[:, first:end]``."""
        parts = (self.constant(np.array([entry], np.int64)) for entry in (first, end, 1))
        return self.node("Slice", value, *parts)
