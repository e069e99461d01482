"""Does the pre-processing fit the model? A wrong range or channel order ruins calibration without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeq.data.select import evenly
from edgeq.errors import CalibrationError
from edgeq.evaluate.fit_color import check_color
from edgeq.evaluate.fit_model import FitFinding, FitModel, Infer, Severity
from edgeq.evaluate.fit_range import check_range
from edgeq.types import HeadSpec, InputSpec, PostProcess, Sample

__all__ = ["FitFinding", "InputFit", "Severity", "check_input_fit"]

_MIRROR_IMAGES = 16
_CONFIDENT, _SENSITIVE = 0.25, 0.01
"""Confidence for telling what the model is sure of, and for what it gives to the labelled boxes."""


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
    picked = evenly(samples, image_limit)
    confident = replace(post, confidence=_CONFIDENT, multi_label=False, max_detections=100)
    model = FitModel(infer, spec, head, confident)
    agreement, range_findings = check_range(model, evenly(picked, _MIRROR_IMAGES))
    sigmas: float | None = None
    color_findings: list[FitFinding] = []
    if not any(finding.severity is Severity.ERROR for finding in range_findings):
        sensitive = replace(post, confidence=_SENSITIVE)
        sigmas, color_findings = check_color(replace(model, post=sensitive), picked)
    return InputFit(
        image_count=len(picked),
        mirror_agreement=agreement,
        color_sigmas=sigmas,
        findings=(*range_findings, *color_findings),
    )
