"""A model on a data set: predictions, metrics, and the drop between two such runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.data.classes import check_classes
from edgeq.data.stream import iter_tensors
from edgeq.errors import DataError
from edgeq.evaluate.bootstrap import detection_drop, hit_drop
from edgeq.evaluate.classification import ClassificationMetrics, agreement, label_ranks, score_classes
from edgeq.evaluate.detection import DetectionMetrics, score_detections
from edgeq.evaluate.drop import Drop
from edgeq.evaluate.matching import MatchTable, match_images
from edgeq.model.decode import decode_outputs
from edgeq.model.fitting import fit_specs
from edgeq.runtimes.base import Session
from edgeq.types import (
    Dataset,
    Detections,
    DetectionTruth,
    Float32Array,
    HeadSpec,
    InputSpec,
    PostProcess,
    Prediction,
    Sample,
    Task,
)

__all__ = ["Evaluation", "compare", "evaluate", "evaluation_of", "prediction_agreement"]

Progress = Callable[[int, int], None]
"""Called with images done and images in all."""


@dataclass(frozen=True)
class Evaluation:
    """One model's predictions on one data set, and what they are worth."""

    metrics: DetectionMetrics | ClassificationMetrics
    samples: tuple[Sample, ...]
    """The images in the order of the predictions, with their labels."""
    detections: tuple[Detections, ...]
    """By image; empty for classifiers."""
    class_scores: Float32Array | None
    """(n, nc) by image; None for detectors."""
    class_names: tuple[str, ...]
    post: PostProcess | None
    """What made raw outputs into detections; None for classifiers."""
    session_details: Mapping[str, str]
    origin: str
    """The data set."""
    split: str

    @property
    def image_count(self) -> int:
        """Number of images."""
        return len(self.samples)

    @property
    def task(self) -> Task:
        """What was measured."""
        return Task.DETECT if self.class_scores is None else Task.CLASSIFY

    def to_json(self) -> dict[str, Any]:
        """Plain data, names with the vocabulary's spelling; predictions are left out."""
        return {
            "task": self.task.value,
            "dataset": self.origin,
            "split": self.split,
            "image_count": self.image_count,
            **self.metrics.to_json(),
            "post_process": None if self.post is None else asdict(self.post),
            "session": dict(self.session_details),
        }


def evaluate(
    session: Session,
    dataset: Dataset,
    *,
    spec: InputSpec,
    head: HeadSpec,
    post: PostProcess,
    progress: Progress | None = None,
    workers: int = 1,
) -> Evaluation:
    """Metrics of a model on labelled images, with every prediction kept.

    Args:
        session: the loaded model.
        dataset: labelled images; all are used.
        spec: what the model wants to see; layout and name are taken from the session's own input.
        head: how to read its outputs; a sole output may have another name.
        post: post-processing of detections; ignored for classifiers.
        progress: told after each image.
        workers: threads that read images ahead.

    Raises:
        DataError: the data set has no labels, those of another task, or other classes than the model, or an
            image cannot be read.
        SpecError: input or outputs do not fit the specs.
    """
    _check_dataset(dataset, head)
    spec, head = fit_specs(spec, head, session.inputs, session.outputs)
    predictions: list[Prediction] = []
    for done, (_, tensor, geometry) in enumerate(
        iter_tensors(dataset.samples, spec, workers=workers), start=1
    ):
        outputs = session.infer(tensor)
        predictions.append(decode_outputs(outputs, head=head, spec=spec, geometry=geometry, post=post))
        if progress is not None:
            progress(done, len(dataset.samples))
    return evaluation_of(predictions, dataset, head=head, post=post, session_details=session.details)


def evaluation_of(
    predictions: Sequence[Prediction],
    dataset: Dataset,
    *,
    head: HeadSpec,
    post: PostProcess,
    session_details: Mapping[str, str],
) -> Evaluation:
    """Metrics of predictions that were made already, here or on a device, one for each image in order.

    Raises:
        DataError: the data set cannot judge the model, or there is not one prediction for each image.
    """
    _check_dataset(dataset, head)
    if len(predictions) != len(dataset.samples):
        raise DataError(f"{len(predictions)} predictions for {len(dataset.samples)} images")
    detections = tuple(found for found in predictions if isinstance(found, Detections))
    scores = [found for found in predictions if not isinstance(found, Detections)]
    class_scores = np.stack(scores) if scores else None
    metrics: DetectionMetrics | ClassificationMetrics
    if class_scores is None:
        metrics = score_detections(detections, _truths(dataset.samples), class_names=head.class_names)
    else:
        metrics = score_classes(class_scores, _labels(dataset.samples))
    return Evaluation(
        metrics=metrics,
        samples=dataset.samples,
        detections=detections,
        class_scores=class_scores,
        class_names=head.class_names,
        post=post if head.task is Task.DETECT else None,
        session_details=dict(session_details),
        origin=dataset.origin,
        split=dataset.split,
    )


def compare(float_eval: Evaluation, int8_eval: Evaluation, *, replicates: int = 1000, seed: int = 0) -> Drop:
    """The paired drop between two evaluations of the same images.

    Raises:
        DataError: the evaluations differ in images, labels, classes, task or post-processing.
    """
    _check_pair(float_eval, int8_eval)
    if float_eval.class_scores is None or int8_eval.class_scores is None:
        return detection_drop(_table(float_eval), _table(int8_eval), replicates=replicates, seed=seed)
    labels = _labels(float_eval.samples)
    return hit_drop(
        label_ranks(float_eval.class_scores, labels) == 0,
        label_ranks(int8_eval.class_scores, labels) == 0,
        replicates=replicates,
        seed=seed,
    )


def prediction_agreement(first: Evaluation, second: Evaluation) -> float:
    """Share of images, 0..1, for which two classifiers have the same best guess.

    Raises:
        DataError: as in `compare`, or these are not classifiers.
    """
    _check_pair(first, second)
    if first.class_scores is None or second.class_scores is None:
        raise DataError("agreement is defined for classifiers only")
    return agreement(first.class_scores, second.class_scores)


def _check_dataset(dataset: Dataset, head: HeadSpec) -> None:
    """Raise DataError where the data set cannot judge the model."""
    if dataset.task is None:
        raise DataError(f"{dataset.origin} has no labels, so there is nothing to measure accuracy against")
    if dataset.task is not head.task:
        raise DataError(
            f"{dataset.origin} is labelled to {dataset.task.value}, the model's task is {head.task.value}"
        )
    if not dataset.samples:
        raise DataError(f"{dataset.origin} has no images in split {dataset.split!r}")
    check_classes(dataset, head.class_names)


def _check_pair(first: Evaluation, second: Evaluation) -> None:
    """Raise DataError where two evaluations cannot be paired."""
    if first.task is not second.task:
        raise DataError("the two evaluations are of different tasks, so there is no drop between them")
    if len(first.class_names) != len(second.class_names):
        raise DataError("the two evaluations are of models with different numbers of classes")
    if first.post != second.post:
        raise DataError(f"the two evaluations have different post-processing: {first.post} and {second.post}")
    mine, theirs = ([sample.key for sample in e.samples] for e in (first, second))
    if mine != theirs:
        only = set(mine) ^ set(theirs)
        example = f"for example {min(only)}" if only else "they are in another order"
        raise DataError(
            f"the two evaluations are of different images ({len(mine)} and {len(theirs)}; {example}), "
            "so their difference says nothing",
            fix="evaluate both models on the same data set and split",
        )


def _table(evaluation: Evaluation) -> MatchTable:
    return match_images(
        evaluation.detections, _truths(evaluation.samples), class_count=len(evaluation.class_names)
    )


def _truths(samples: tuple[Sample, ...]) -> list[DetectionTruth]:
    """Labelled boxes of each image."""
    truths = [sample.truth for sample in samples if isinstance(sample.truth, DetectionTruth)]
    if len(truths) != len(samples):
        raise DataError(f"{len(samples) - len(truths)} of {len(samples)} images have no boxes as labels")
    return truths


def _labels(samples: tuple[Sample, ...]) -> npt.NDArray[np.int64]:
    """Class of each image."""
    labels = [sample.truth for sample in samples if isinstance(sample.truth, int)]
    if len(labels) != len(samples):
        raise DataError(f"{len(samples) - len(labels)} of {len(samples)} images have no class as label")
    return np.array(labels, dtype=np.int64)
