"""How far an INT8 detector's boxes and scores move, where the float model sees something.

Noise at the prediction layers is mostly that of the background, which is most of an image and decides
nothing. What the metric feels is how boxes and scores of likely objects move.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.model.decode import decode_rows
from edgeq.quantize.ort import cpu_session, in_parallel
from edgeq.quantize.unsigned import unsigned_bytes
from edgeq.types import Float32Array, HeadFamily, HeadSpec, InputSpec, Task

__all__ = ["OutputDrift", "has_rows"]

_MOST_ROWS = 100
_LIKELY = 0.05
"""Rows that the float model scores lower decide nothing."""
_Rows = tuple[Float32Array, Float32Array]


def has_rows(head: HeadSpec) -> bool:
    """Whether :class:`OutputDrift` can compare models with such a head."""
    return head.task is Task.DETECT and head.family is not HeadFamily.END_TO_END


class OutputDrift:
    """Drift of INT8 detectors against one float model."""

    def __init__(
        self,
        model: ir.Model,
        images: Sequence[Float32Array],
        *,
        spec: InputSpec,
        head: HeadSpec,
        integer_kernels: bool = True,
    ) -> None:
        """Run the float model.

        Args:
            model: normalised float model.
            images: pre-processed calibration inputs; a few are enough, since hundreds of rows are compared.
            spec: of the input.
            head: of the outputs; one that `has_rows`.
            integer_kernels: as for :func:`edgeq.quantize.ort.cpu_session`; False where layers give float
                in the runtime too.
        """
        self._images, self._spec, self._head = images, spec, head
        self._integer_kernels = integer_kernels
        self._float = [_likely(rows) for rows in self._rows(model)]

    def of(self, qdq: ir.Model) -> float:
        """Mean over likely objects of 1 - IoU plus the change of the score, weighted by the float score."""
        drift, weight = 0.0, 1e-12
        for (kept, boxes, scores, classes), (all_boxes, all_scores) in zip(
            self._float, self._rows(qdq), strict=True
        ):
            moved = 1.0 - _iou(boxes, all_boxes[kept])
            changed = np.abs(all_scores[kept, classes] - scores) / np.maximum(scores, _LIKELY)
            drift += float(np.sum(scores * (moved + changed)))
            weight += float(np.sum(scores))
        return drift / weight

    def _rows(self, model: ir.Model) -> list[_Rows]:
        session = cpu_session(unsigned_bytes(model), integer_kernels=self._integer_kernels)
        name, output = session.get_inputs()[0].name, self._head.output

        def rows(image: Float32Array) -> _Rows:
            made = session.run([output], {name: image})[0]
            return decode_rows({output: made}, head=self._head, spec=self._spec)

        return list(in_parallel(rows, self._images))


_Likely = tuple[npt.NDArray[np.intp], Float32Array, Float32Array, npt.NDArray[np.intp]]


def _likely(rows: _Rows) -> _Likely:
    """(row numbers, boxes, best scores, their classes) of the rows that may be objects."""
    boxes, scores = rows
    classes = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), classes]
    order = np.argsort(-best, kind="stable")[:_MOST_ROWS]
    kept = order[best[order] >= _LIKELY]
    return kept, boxes[kept], best[kept], classes[kept]


def _iou(first: Float32Array, second: Float32Array) -> npt.NDArray[np.float64]:
    """(n,) intersection over union, box by box."""
    corners = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    overlap = np.prod(np.clip(corners, 0.0, None), axis=1, dtype=np.float64)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64) for boxes in (first, second)]
    return np.asarray(overlap / np.maximum(areas[0] + areas[1] - overlap, 1e-12))
