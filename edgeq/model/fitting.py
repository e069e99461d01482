"""One set of specs for every form of a model: layout and names as a session's own tensors have them.

The same network is NCHW as ONNX and NHWC as TFLite, and converters rename tensors. What an image means to
the model stays the same; this is the one place where a spec is brought to the form that a session takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeq.errors import SpecError
from edgeq.types import HeadFamily, HeadSpec, InputSpec, Layout, TensorInfo

__all__ = ["fit_head", "fit_input", "fit_specs"]


def fit_specs(
    spec: InputSpec, head: HeadSpec, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> tuple[InputSpec, HeadSpec]:
    """Both for a session with these inputs and outputs; see `fit_input` and `fit_head`."""
    return fit_input(spec, inputs), fit_head(head, outputs)


def fit_input(spec: InputSpec, inputs: Sequence[TensorInfo]) -> InputSpec:
    """The spec in the layout and with the name of a session's input.

    Raises:
        SpecError: the session takes another size, or more than one input.
    """
    if len(inputs) != 1:
        names = ", ".join(info.name for info in inputs) or "none"
        raise SpecError(f"expected one image input, the model has {len(inputs)}: {names}")
    tensor = inputs[0]
    other = Layout.NHWC if spec.layout is Layout.NCHW else Layout.NCHW
    for layout in (spec.layout, other):
        candidate = replace(spec, name=tensor.name, layout=layout)
        if _fits(tensor, candidate.shape):
            return candidate
    raise SpecError(
        f"input {tensor.name!r} takes {list(tensor.shape)}, the images are prepared as {list(spec.shape)}",
        fix="compare forms of one model at one size: give the float model that it was made from, "
        "or for a .pt its size with --imgsz",
    )


def fit_head(head: HeadSpec, outputs: Sequence[TensorInfo]) -> HeadSpec:
    """The head with the name that the predictions have among a session's outputs.

    Raises:
        SpecError: it has another name, and more than one output could be it.
    """
    names = [info.name for info in outputs]
    if head.output in names:
        return head
    likely = names if len(names) == 1 else [info.name for info in outputs if _may_be(info, head)]
    if len(likely) == 1:
        return replace(head, output=likely[0])
    raise SpecError(
        f"the model has no output {head.output!r}, only {', '.join(names)}",
        fix="name the one that holds the predictions: --output-name",
    )


def _fits(tensor: TensorInfo, shape: Sequence[int]) -> bool:
    """Whether a tensor of that shape can go in; unknown dimensions take any size."""
    return len(tensor.shape) == len(shape) and all(
        own in (size, -1) or not isinstance(own, int)
        for own, size in zip(tensor.shape, shape)  # noqa: B905 (boards may have Python 3.9)
    )


def _may_be(info: TensorInfo, head: HeadSpec) -> bool:
    """Whether an output's shape is that of the head's predictions."""
    if head.family is HeadFamily.CLASSIFIER:
        return len(info.shape) == 2 and info.shape[1] == head.class_count
    per_box = {HeadFamily.YOLOV8: 4 + head.class_count, HeadFamily.END_TO_END: 6}
    return len(info.shape) == 3 and per_box.get(head.family, 5 + head.class_count) in info.shape[1:]
