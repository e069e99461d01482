"""Does the pre-processing fit the model? A wrong range or channel order ruins calibration without a word.

*Range*, no labels needed: a model that sees what it was trained on says the same of an image and of its
mirror image. Fed 255 times too much, a detector fires everywhere with full confidence, but elsewhere in the
mirror image; fed 255 times too little, it sees nothing. So the agreement between the two, not confidence,
is what is compared between the input as given, times 255 and divided by 255.

*Channel order*, labels needed: exchanging red and blue costs a few points at most, less than mAP on some
dozen images can show. The score that a model gives to the labelled objects is finer: its difference, paired
by image, is tested against its standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgeq.cores import core_count
from edgeq.data.stream import iter_tensors
from edgeq.errors import CalibrationError
from edgeq.evaluate.matching import match_image, overlaps
from edgeq.model.decode import BoxMapping, decode_classes, decode_detections
from edgeq.types import (
    ColorOrder,
    Detections,
    DetectionTruth,
    Float32Array,
    HeadSpec,
    InputSpec,
    Layout,
    PostProcess,
    Sample,
    Task,
)

__all__ = ["FitFinding", "InputFit", "Severity", "check_input_fit"]

Infer = Callable[[Float32Array], Mapping[str, npt.NDArray[Any]]]
Prediction = Detections | Float32Array
_Image = tuple[Sample, Float32Array, BoxMapping]
_Result = TypeVar("_Result")

_MIRROR_IMAGES, _FEW_MIRROR_IMAGES = 16, 6
_HEALTHY = 0.75
"""Agreement from which on no other range can be clearly better; correct models reach 0.80 to 0.87 or more."""
_CLEARLY_BETTER = 0.25
_PLAUSIBLE = {Task.DETECT: 0.5, Task.CLASSIFY: 0.75}
"""Agreement that a range must reach to be recommended; detectors fed 255 times too much reach up to 0.41."""
_CONFIDENT, _SENSITIVE = 0.25, 0.01
"""Confidence for telling what the model is sure of, and for what it gives to the labelled boxes."""
_FEWEST_BOXES = 5
_LEAST_REACTION = 0.1
"""Spread of class scores over images against that over classes; under it, the model sees no difference."""
_SIGMAS_SURE, _SIGMAS_SUSPECT = 2.3, 1.5
"""One-sided chance of 1 % and 7 % of a false alarm for a model to which colour means nothing."""
_COLOR_LOOKS, _SIGMAS_RIGHT = 3, -1.0
"""The images are looked at in so many parts, and the order as given passes where it leads by a standard
error: an order that is wrong by 2.3 of them on all images leads so on a third of them once in a hundred
times."""
_FACTORS = {"x255": 255.0, "/255": 1 / 255}


class Severity(str, Enum):
    """How much a finding weighs."""

    ERROR = "error"
    """Calibrating like this gives a bad model."""
    NOTE = "note"


@dataclass(frozen=True)
class FitFinding:
    """One thing that was noticed about the pre-processing."""

    severity: Severity
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class InputFit:
    """How well the pre-processing fits the model."""

    image_count: int
    mirror_agreement: Mapping[str, float]
    """0..1 for ``given``, and for ``x255`` and ``/255`` where ``given`` left a doubt."""
    color_sigmas: float | None
    """Gain from exchanging red and blue in standard errors; above 0: exchanged is better; None: no labels, or
    the range is wrong already."""
    findings: tuple[FitFinding, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing speaks clearly against the pre-processing."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        findings = [{**asdict(finding), "severity": finding.severity.value} for finding in self.findings]
        return {**asdict(self), "findings": findings, "fits": self.fits}

    def require(self) -> None:
        """Return if the pre-processing fits.

        Raises:
            CalibrationError: it does not; the message names the fix.
        """
        for finding in self.findings:
            if finding.severity is Severity.ERROR:
                raise CalibrationError(finding.message, fix=finding.fix)


@dataclass(frozen=True)
class _Model:
    """What it takes to turn a tensor into a prediction."""

    infer: Infer
    spec: InputSpec
    head: HeadSpec
    post: PostProcess

    def predict(self, tensor: Float32Array, geometry: BoxMapping) -> Prediction:
        outputs = self.infer(np.ascontiguousarray(tensor, dtype=np.float32))
        if self.head.task is Task.CLASSIFY:
            return decode_classes(outputs, head=self.head)
        return decode_detections(outputs, head=self.head, spec=self.spec, geometry=geometry, post=self.post)


class _InputPixels:
    """Leaves boxes in the model's input, where an image and its mirror image are compared."""

    def to_original(self, boxes_xyxy: Float32Array, /) -> Float32Array:
        return boxes_xyxy


def check_input_fit(
    infer: Infer,
    samples: Sequence[Sample],
    *,
    spec: InputSpec,
    head: HeadSpec,
    post: PostProcess,
    image_limit: int = 32,
) -> InputFit:
    """How well an input spec fits a float model, from a few images, labelled or not.

    Takes at most 16 images for the range (two inferences each, six where the first two leave a doubt) and
    ``image_limit`` labelled ones for the channel order (two each); fewer where a part of them settles it.

    Args:
        infer: outputs by name for one input tensor; called from several threads.
        samples: images like those that the model was trained on; some are picked evenly.
        spec: the pre-processing in doubt.
        head: how to read the outputs.
        post: NMS for detectors; the confidence is chosen here.
        image_limit: at most so many images.

    Raises:
        DataError: an image cannot be read.
        SpecError: the outputs do not fit the head.
    """
    picked = _evenly(samples, image_limit)
    confident = replace(post, confidence=_CONFIDENT, multi_label=False, max_detections=100)
    agreement, range_findings = _check_range(
        _Model(infer, spec, head, confident), _evenly(picked, _MIRROR_IMAGES)
    )
    sigmas: float | None = None
    color_findings: list[FitFinding] = []
    if not any(finding.severity is Severity.ERROR for finding in range_findings):
        sensitive = replace(post, confidence=_SENSITIVE)
        sigmas, color_findings = _check_color(_Model(infer, spec, head, sensitive), picked)
    return InputFit(
        image_count=len(picked),
        mirror_agreement=agreement,
        color_sigmas=sigmas,
        findings=(*range_findings, *color_findings),
    )


def _side_by_side(
    function: Callable[[_Image], _Result], samples: Sequence[Sample], spec: InputSpec
) -> list[_Result]:
    """The function of every image, one thread a core."""
    with ThreadPoolExecutor(max_workers=core_count()) as pool:
        return list(pool.map(function, iter_tensors(samples, spec)))


def _evenly(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most ``limit`` samples, spread over all of them."""
    count = min(limit, len(samples))
    return [samples[index * len(samples) // count] for index in range(count)]


# Range


def _check_range(model: _Model, samples: Sequence[Sample]) -> tuple[dict[str, float], list[FitFinding]]:
    """Mirror agreement of each range that was tried, and what follows."""
    # A detector's boxes on a few images are a population; a classifier's answers are one each.
    few = _evenly(samples, _FEW_MIRROR_IMAGES) if model.head.task is Task.DETECT else samples
    agreement = {"given": _mirror_agreement(model, few, 1.0)}
    if agreement["given"] < _HEALTHY and len(few) < len(samples):
        agreement["given"] = _mirror_agreement(model, samples, 1.0)
    if agreement["given"] >= _HEALTHY:
        return agreement, []
    for name, factor in _FACTORS.items():
        agreement[name] = _mirror_agreement(model, samples, factor)
    best = max(_FACTORS, key=agreement.__getitem__)
    clear = agreement[best] - agreement["given"] >= _CLEARLY_BETTER
    if clear and agreement[best] >= _PLAUSIBLE[model.head.task]:
        return agreement, [_range_error(model.spec, best, agreement)]
    if agreement["given"] == 0:
        message = (
            f"on {len(samples)} images the model finds nothing that it would also find in their mirror "
            "images, at any range: the pre-processing, the images or the model may not be what they should be"
        )
        return agreement, [FitFinding(Severity.NOTE, message, "look at some predictions: edgeq predict")]
    return agreement, []


def _range_error(spec: InputSpec, best: str, agreement: Mapping[str, float]) -> FitFinding:
    """The finding for an input that is 255 times too small or too large."""
    std = tuple(value / _FACTORS[best] for value in spec.std)
    numbers = " ".join(f"{value:g}" for value in (std[:1] if len(set(std)) == 1 else std))
    fix = f"--std {numbers}"
    if spec.mean == (0.0, 0.0, 0.0) and numbers in ("1", "255"):
        fix = f"--mean 0 {fix} (range {'0..255' if numbers == '1' else '0..1'})"
    words = "small" if best == "x255" else "large"
    return FitFinding(
        Severity.ERROR,
        f"the model's input is 255 times too {words}: predictions agree with those for the mirror image "
        f"to {agreement[best]:.0%} with the input {best}, to {agreement['given']:.0%} as it is given",
        fix,
    )


def _mirror_agreement(model: _Model, samples: Sequence[Sample], factor: float) -> float:
    """How much predictions agree between images and mirror images, 0..1, the input times ``factor``."""
    mirror_axis = 3 if model.spec.layout is Layout.NCHW else 2

    def pair(image: _Image) -> tuple[Prediction, Prediction]:
        scaled = image[1] * np.float32(factor)
        mirrored = np.flip(scaled, axis=mirror_axis)
        return model.predict(scaled, _InputPixels()), model.predict(mirrored, _InputPixels())

    pairs = _side_by_side(pair, samples, model.spec)
    boxes = [(a, b) for a, b in pairs if isinstance(a, Detections) and isinstance(b, Detections)]
    if boxes:
        return _box_agreement(boxes, model.spec.width_px, model.head.class_count)
    return _class_agreement(
        [(a, b) for a, b in pairs if isinstance(a, np.ndarray) and isinstance(b, np.ndarray)]
    )


def _box_agreement(pairs: Sequence[tuple[Detections, Detections]], width_px: int, class_count: int) -> float:
    """F1 of the detections in images against those in mirror images, over all images together."""
    matched = total = 0
    for found, mirrored in pairs:
        boxes = mirrored.boxes_xyxy.copy()
        boxes[:, [0, 2]] = width_px - boxes[:, [2, 0]]
        count = len(boxes)
        truth = DetectionTruth(boxes, mirrored.class_ids, np.zeros(count, np.bool_), np.ones(count))
        matched += int(match_image(found, truth, class_count=class_count).hits[0].sum())
        total += len(found.scores) + count
    return 2 * matched / total if total >= 2 * _FEWEST_BOXES else 0.0


def _class_agreement(pairs: Sequence[tuple[Float32Array, Float32Array]]) -> float:
    """Share of images with the same best class in the mirror image; 0 where all images look the same."""
    if len(pairs) < 2:
        return 0.0
    scores = _logits(np.stack([a for a, _ in pairs]))
    mirrored = np.stack([b for _, b in pairs])
    spread = float(scores.std(axis=1).mean())
    if spread == 0 or scores.std(axis=0).mean() < _LEAST_REACTION * spread:
        return 0.0
    return float((scores.argmax(axis=1) == mirrored.argmax(axis=1)).mean())


# Channel order


def _check_color(model: _Model, samples: Sequence[Sample]) -> tuple[float | None, list[FitFinding]]:
    """Gain from exchanging red and blue in standard errors, and what follows."""
    labelled = [sample for sample in samples if sample.truth is not None]
    if not labelled:
        message = "the channel order (RGB or BGR) cannot be checked without labelled images"
        return None, [FitFinding(Severity.NOTE, message)]

    def gain_of(image: _Image) -> float:
        sample, tensor, geometry = image
        given = _label_score(model.predict(tensor, geometry), sample)
        swapped = _label_score(model.predict(_swap_colors(tensor, model.spec), geometry), sample)
        return swapped - given

    gains: list[float] = []
    for start in range(_COLOR_LOOKS):
        gains += _side_by_side(gain_of, labelled[start::_COLOR_LOOKS], model.spec)
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
        logits = _logits(prediction[None])[0]
        shares = np.exp(logits - logits.max())
        return float(shares[truth] / shares.sum())
    if not isinstance(truth, DetectionTruth) or not isinstance(prediction, Detections) or truth.crowd.all():
        return float("nan")
    fits = overlaps(prediction.boxes_xyxy, truth) >= 0.5
    fits &= prediction.class_ids[:, None] == truth.class_ids[None]
    return float(np.where(fits, prediction.scores[:, None], 0).max(axis=0, initial=0)[~truth.crowd].mean())


def _logits(scores: Float32Array) -> npt.NDArray[np.float64]:
    """(n, nc) scores before softmax, whether the model ends with one or not."""
    wide = scores.astype(np.float64)
    if wide.min() >= 0 and np.allclose(wide.sum(axis=1), 1, atol=1e-3):
        wide = np.log(np.maximum(wide, 1e-12))
    return wide


def _swap_colors(tensor: Float32Array, spec: InputSpec) -> Float32Array:
    """The tensor of the same image with red and blue exchanged, normalised as the model's channels are."""
    shape = (1, 3, 1, 1) if spec.layout is Layout.NCHW else (1, 1, 1, 3)
    mean = np.array(spec.mean, np.float32).reshape(shape)
    std = np.array(spec.std, np.float32).reshape(shape)
    pixels = tensor * std + mean
    swapped: Float32Array = (np.flip(pixels, axis=shape.index(3)) - mean) / std
    return swapped
