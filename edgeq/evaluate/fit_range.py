"""Is a model's input in the range that it was trained on? No labels are needed.

A model that sees what it was trained on says the same of an image and of its mirror image. Fed 255 times
too much, a detector fires everywhere with full confidence, but elsewhere in the mirror image; fed 255 times
too little, it sees nothing. So the agreement between the two, not confidence, is what is compared between
the input as given, times 255 and divided by 255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeq.data.select import evenly
from edgeq.evaluate.fit_model import FitFinding, FitModel, Image, Severity, logits, side_by_side
from edgeq.evaluate.matching import match_image
from edgeq.model.decode import InputPixels
from edgeq.types import Detections, DetectionTruth, Float32Array, InputSpec, Layout, Prediction, Sample, Task

__all__ = ["check_range"]

_FEW_IMAGES = (3, 6)
"""A detector is looked at on so many images first; on three of 24, 0.75 is reached by right ranges in three
of four choices and by wrong ones in none, for YOLOX-Nano, YOLOv5n and YOLOv8n."""
_HEALTHY = 0.75
"""Agreement from which on no other range can be clearly better; correct models reach 0.80 to 0.87 or more."""
_CLEARLY_BETTER = 0.25
_PLAUSIBLE = {Task.DETECT: 0.5, Task.CLASSIFY: 0.75}
"""Agreement that a range must reach to be recommended; detectors fed 255 times too much reach up to 0.41."""
_FEWEST_BOXES = 5
_LEAST_REACTION = 0.1
"""Spread of class scores over images against that over classes; under it, the model sees no difference."""
_FACTORS = {"x255": 255.0, "/255": 1 / 255}


def check_range(model: FitModel, samples: Sequence[Sample]) -> tuple[dict[str, float], list[FitFinding]]:
    """Mirror agreement of each range that was tried, and what follows."""
    # A detector's boxes on a few images are a population; a classifier's answers are one each.
    first = _FEW_IMAGES if model.head.task is Task.DETECT else ()
    agreement: dict[str, float] = {}
    for count in (*(few for few in first if few < len(samples)), len(samples)):
        agreement["given"] = _mirror_agreement(model, evenly(samples, count), 1.0)
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


def _mirror_agreement(model: FitModel, samples: Sequence[Sample], factor: float) -> float:
    """How much predictions agree between images and mirror images, 0..1, the input times ``factor``."""
    mirror_axis = 3 if model.spec.layout is Layout.NCHW else 2

    def pair(image: Image) -> tuple[Prediction, Prediction]:
        scaled = image[1] * np.float32(factor)
        mirrored = model.predict(np.flip(scaled, axis=mirror_axis), InputPixels())
        if factor == 1.0:
            return model.predict_kept(image, InputPixels()), mirrored
        return model.predict(scaled, InputPixels()), mirrored

    pairs = side_by_side(pair, samples, model.spec)
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
    scores = logits(np.stack([a for a, _ in pairs]))
    mirrored = np.stack([b for _, b in pairs])
    spread = float(scores.std(axis=1).mean())
    if spread == 0 or scores.std(axis=0).mean() < _LEAST_REACTION * spread:
        return 0.0
    return float((scores.argmax(axis=1) == mirrored.argmax(axis=1)).mean())
