"""A saved pipeline: checked, then its models one after the other.

The checks are those of Core ML's own validators, and that thresholds and labels reach the suppression.
Sources: coremltools, ``mlmodel/src/Validation/{Pipeline,NonMaximumSuppression,Interface}Validator*.cpp``.
Core ML itself is part of macOS: what this says of a pipeline is what its file says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ModelError
from edgeq.runtimes.coreml.interpret.program import Interpreter, Program, open_package, read_program
from edgeq.runtimes.coreml.interpret.suppression import Suppression, read_suppression

__all__ = ["Pipeline", "check_pipeline", "load_pipeline"]

Array = npt.NDArray[Any]
_FIX = "write it anew with 'edgeq export'"


@dataclass(frozen=True)
class Pipeline:
    """Executes a pipeline; an image is fed as its pixels, float32 (1, 3, h, w), 0..255."""

    inputs: tuple[str, ...]
    optional: frozenset[str]
    outputs: tuple[str, ...]
    suppression: Suppression
    _stages: tuple[Callable[[Mapping[str, Any]], Mapping[str, Array]], ...]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Outputs by name.

        Args:
            feeds: by name, those that are not optional at least.

        Raises:
            ModelError: a feed is missing, or has no input.
        """
        wrong = (set(self.inputs) - self.optional - set(feeds)) | (set(feeds) - set(self.inputs))
        if wrong:
            raise ModelError(
                f"the pipeline takes {', '.join(self.inputs)}; wrong: {', '.join(sorted(wrong))}"
            )
        values: dict[str, Any] = dict(feeds)
        for stage in self._stages:
            values.update(stage(values))
        return {name: np.asarray(values[name]) for name in self.outputs}


def load_pipeline(path: Path) -> Pipeline:
    """A package's detector with suppression behind it, checked.

    Raises:
        ModelError: it is no such pipeline, or its parts do not fit.
        UnavailableError: coremltools is not installed.
    """
    spec, weights = open_package(path)
    check_pipeline(spec)
    detector, last = spec.pipeline.models
    program = read_program(detector, weights, path)
    _check_program(detector, program)
    suppression = read_suppression(last)
    interpreter = Interpreter(program)
    return Pipeline(
        inputs=tuple(entry.name for entry in spec.description.input),
        optional=frozenset(entry.name for entry in spec.description.input if entry.type.isOptional),
        outputs=tuple(entry.name for entry in spec.description.output),
        suppression=suppression,
        _stages=(
            lambda values: interpreter.run({name: values[name] for name in program.inputs}),
            suppression.run,
        ),
    )


def check_pipeline(spec: Any) -> None:
    """Return if each model of a pipeline gets what it reads, in the type that it reads.

    Args:
        spec: coremltools' message.

    Raises:
        ModelError: it is no pipeline of an mlprogram and a suppression, or its parts do not fit.
    """
    kinds = [model.WhichOneof("Type") for model in spec.pipeline.models]
    _require(
        kinds == ["mlProgram", "nonMaximumSuppression"], f"a pipeline of {', '.join(kinds) or 'nothing'}"
    )
    names = list(spec.pipeline.names)
    _require(len(set(names)) == len(kinds) == len(names), f"the names {names} of {len(kinds)} models")
    known = {entry.name: entry for entry in spec.description.input}
    _require(len(known) == len(spec.description.input), "two inputs of one name")
    for name, model in zip(names, spec.pipeline.models):
        for entry in model.description.input:
            _same(entry, known, f"the input of {name}")
            _require(not entry.type.isOptional, f"{entry.name!r}, which is optional for {name} itself")
        for entry in model.description.output:
            _require(entry.name not in known, f"{entry.name!r} a second time, from {name}")
            known[entry.name] = entry
    for entry in spec.description.output:
        _same(entry, known, "the pipeline's output")
    _check_suppression(spec.pipeline.models[1])


def _check_suppression(model: Any) -> None:
    """Names of the message and of the description are the same, boxes and scores have one type."""
    nms, described = model.nonMaximumSuppression, model.description
    arrays = (nms.confidenceInputFeatureName, nms.coordinatesInputFeatureName)
    thresholds = (nms.iouThresholdInputFeatureName, nms.confidenceThresholdInputFeatureName)
    kept = (nms.confidenceOutputFeatureName, nms.coordinatesOutputFeatureName)
    inputs = {entry.name: entry.type for entry in described.input}
    outputs = {entry.name: entry.type for entry in described.output}
    _require(set(inputs) == {*arrays, *thresholds}, f"a suppression that reads {', '.join(inputs)}")
    _require(set(outputs) == set(kept), f"a suppression that gives {', '.join(outputs)}")
    _require(
        all(inputs[name].WhichOneof("Type") == "doubleType" for name in thresholds),
        "thresholds that are not doubles",
    )
    found = [*(inputs[name].multiArrayType for name in arrays), *(outputs[n].multiArrayType for n in kept)]
    _require(len({array.dataType for array in found}) == 1, "boxes and scores of different types")
    _require(found[0].dataType in (found[0].DOUBLE, found[0].FLOAT32), "scores that are no float32")
    count = len(nms.stringClassLabels.vector)
    widths = [array.shape[1] if len(array.shape) == 2 else 0 for array in found[:2]]
    widths += [array.shapeRange.sizeRanges[1].upperBound for array in found[2:]]
    _require(widths == [count, 4, count, 4], f"{count} labels for columns {widths}")
    _require(found[0].shape[0] == found[1].shape[0], "not one box for each row of scores")
    _require(0 <= nms.iouThreshold <= 1 and nms.confidenceThreshold >= 0, "thresholds out of range")


def _check_program(model: Any, program: Program) -> None:
    """The program takes and gives what its description says."""
    for entries, shapes in (
        (model.description.input, program.inputs),
        (model.description.output, program.outputs),
    ):
        described = {entry.name: _shape(entry) for entry in entries}
        _require(described == dict(shapes), f"a program of {dict(shapes)} described as {described}")


def _shape(entry: Any) -> tuple[int, ...]:
    if entry.type.WhichOneof("Type") == "imageType":
        return (1, 3, int(entry.type.imageType.height), int(entry.type.imageType.width))
    return tuple(int(size) for size in entry.type.multiArrayType.shape)


def _same(entry: Any, known: Mapping[str, Any], what: str) -> None:
    """The value of that name is known and of that type, optional or not."""
    _require(entry.name in known, f"{what}, {entry.name!r}, which nothing gives")
    types = []
    for described in (entry, known[entry.name]):
        copy = type(entry.type)()
        copy.CopyFrom(described.type)
        copy.isOptional = False
        types.append(copy)
    _require(types[0] == types[1], f"{what}, {entry.name!r}, in another type than it is given")


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ModelError(f"the pipeline does not fit together: it has {what}", fix=_FIX)
