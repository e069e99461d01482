"""Are a model's channels in the order that it was trained on? Labels are needed.

Exchanging red and blue costs a few points at most, less than mAP on some dozen images can show. The score
that a model gives to the labelled objects is finer: its difference, paired by image, is tested against its
standard error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeq.evaluate.fit_model import FitFinding, FitModel, Image, Severity, logits, side_by_side
from edgeq.evaluate.matching import overlaps
from edgeq.types import (
    ColorOrder,
    Detections,
    DetectionTruth,
    Float32Array,
    InputSpec,
    Layout,
    Prediction,
    Sample,
)

__all__ = ["check_color"]

_SIGMAS_SURE, _SIGMAS_SUSPECT = 2.3, 1.5
"""One-sided chance of 1 % and 7 % of a false alarm for a model to which colour means nothing."""
_LOOKS, _SIGMAS_RIGHT = 4, -1.2
"""The images are looked at in so many parts, and the order as given passes where it leads by so many standard
errors: an order that is wrong by 2.3 of them on all images leads so on a quarter of them once in a hundred
times."""


def check_color(model: FitModel, samples: Sequence[Sample]) -> tuple[float | None, list[FitFinding]]:
    """Gain from exchanging red and blue in standard errors, and what follows."""
    labelled = [sample for sample in samples if sample.truth is not None]
    if not labelled:
        message = "the channel order (RGB or BGR) cannot be checked without labelled images"
        return None, [FitFinding(Severity.NOTE, message)]

    def gain_of(image: Image) -> float:
        sample, tensor, geometry = image
        given = _label_score(model.predict_kept(image, geometry), sample)
        swapped = _label_score(model.predict(_swap_colors(tensor, model.spec), geometry), sample)
        return swapped - given

    # What the model is known to answer comes first, the rest spread evenly.
    spread = [sample for start in range(_LOOKS) for sample in labelled[start::_LOOKS]]
    spread.sort(key=lambda sample: sample.key not in model.known)
    look = -(-len(spread) // _LOOKS)
    gains: list[float] = []
    for start in range(0, len(spread), look):
        gains += side_by_side(gain_of, spread[start : start + look], model.spec)
        sigmas = _sigmas(np.array(gains))
        if sigmas <= _SIGMAS_RIGHT:
            break
    other = ColorOrder.BGR if model.spec.color is ColorOrder.RGB else ColorOrder.RGB
    gain = f"on {len(gains)} labelled images the model is surer of the right answers in {other.value.upper()}"
    fix = f"--color {other.value}"
    if sigmas >= _SIGMAS_SURE:
        message = f"{gain} than in {model.spec.color.value.upper()} as given ({sigmas:.1f} standard errors)"
        return sigmas, [FitFinding(Severity.ERROR, message, fix)]
    if sigmas >= _SIGMAS_SUSPECT:
        message = f"{gain}, but so many images cannot decide it ({sigmas:.1f} standard errors)"
        return sigmas, [FitFinding(Severity.NOTE, message, f"if it was trained so: {fix}")]
    return sigmas, []


def _sigmas(gains: npt.NDArray[np.float64]) -> float:
    """Mean of paired gains in standard errors; 0 where too few images or no spread leave nothing to judge."""
    known = gains[np.isfinite(gains)]
    if len(known) < 8 or known.std() == 0:
        return 0.0
    return float(known.mean() / (known.std(ddof=1) / np.sqrt(len(known))))


def _label_score(prediction: Prediction, sample: Sample) -> float:
    """Mean score that a prediction gives to what is labelled, 0..1; NaN where nothing is."""
    truth = sample.truth
    if isinstance(truth, int) and isinstance(prediction, np.ndarray):
        scores = logits(prediction[None])[0]
        shares = np.exp(scores - scores.max())
        return float(shares[truth] / shares.sum())
    if not isinstance(truth, DetectionTruth) or not isinstance(prediction, Detections) or truth.crowd.all():
        return float("nan")
    fits = overlaps(prediction.boxes_xyxy, truth) >= 0.5
    fits &= prediction.class_ids[:, None] == truth.class_ids[None]
    return float(np.where(fits, prediction.scores[:, None], 0).max(axis=0, initial=0)[~truth.crowd].mean())


def _swap_colors(tensor: Float32Array, spec: InputSpec) -> Float32Array:
    """The tensor of the same image with red and blue exchanged, normalised as the model's channels are."""
    shape = (1, 3, 1, 1) if spec.layout is Layout.NCHW else (1, 1, 1, 3)
    mean = np.array(spec.mean, np.float32).reshape(shape)
    std = np.array(spec.std, np.float32).reshape(shape)
    pixels = tensor * std + mean
    swapped: Float32Array = (np.flip(pixels, axis=shape.index(3)) - mean) / std
    return swapped
