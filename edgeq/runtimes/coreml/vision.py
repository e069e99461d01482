"""A pipeline of a detector and Core ML's NonMaximumSuppression, as apps that use Vision expect it.

Image in; out ``confidence`` (k, nc) and ``coordinates`` (k, 4) of the boxes that are left, cx, cy, w, h in
0..1; the thresholds are inputs that may be left out. Vision recognises such a model as an object detector
and gives observations with labels. Sources: coremltools, ``mlmodel/format/NonMaximumSuppression.proto`` and
``models/pipeline.py``. No Mac has run one: elsewhere `edgeq.runtimes.coreml.interpret.pipeline` reads the
saved file back, and suppresses as the format's documentation says.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgeq.errors import InputError, OutputError
from edgeq.files import new_folder
from edgeq.runtimes.base import Artifact
from edgeq.runtimes.coreml.detections import BOXES, SCORES, with_boxes_and_scores
from edgeq.runtimes.coreml.image import image_input
from edgeq.runtimes.coreml.lower import write_package
from edgeq.runtimes.coreml.native import import_coremltools
from edgeq.runtimes.coreml.package import WEIGHTS_FILE, name_items_after_content, package_files
from edgeq.runtimes.coreml.source import read_source
from edgeq.types import HeadSpec, InputSpec, PostProcess

__all__ = ["write_detector", "write_vision"]

_THRESHOLDS = {"iouThreshold": "IoU", "confidenceThreshold": "confidence"}


def write_vision(
    model: bytes, path: Path, *, spec: InputSpec, head: HeadSpec, post: PostProcess, half: bool = True
) -> Artifact:
    """The pipeline as one ``.mlpackage``, whole or not at all.

    Args:
        model: serialised QDQ or float model.
        path: the package's folder; replaced where it exists.
        spec: its input, which has to fit an image input.
        head: of a family that needs NMS.
        post: thresholds where the app gives none.
        half: float16 but for the decoding.

    Raises:
        InputError: the input takes no image.
        SpecError: the head needs no NMS.
        ModelError: as lowering.
        OutputError: it cannot be written.
        UnavailableError: coremltools is not installed.
    """
    tools = import_coremltools()
    with tempfile.TemporaryDirectory(prefix="edgeq-vision-") as work:
        detector = write_detector(model, Path(work) / "detector.mlpackage", spec=spec, head=head, half=half)
        made = Path(work) / path.name
        weights = (detector.path / WEIGHTS_FILE).parent
        native = tools.models.MLModel(str(detector.path), skip_model_load=True)
        whole = _pipeline(native.get_spec(), head, post)
        try:
            tools.models.utils.save_spec(whole, str(made), weights_dir=str(weights))
            name_items_after_content(made)
            with new_folder(path, force=True) as target:
                shutil.copytree(made, target, dirs_exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}", fix="free some space") from error
    return Artifact(path, package_files(path))


def write_detector(model: bytes, path: Path, *, spec: InputSpec, head: HeadSpec, half: bool) -> Artifact:
    """The pipeline's first model alone: image in, all boxes and scores out; raises as `write_vision`."""
    image = image_input(spec)
    if image is None:
        raise InputError(
            "Vision feeds images, and this model's normalisation has a scale for each channel",
            fix="export it with one std for all channels",
        )
    decoded = with_boxes_and_scores(model, head=head, spec=spec)
    return write_package(read_source(decoded), path, half=half, image=image)


def _pipeline(detector: Any, head: HeadSpec, post: PostProcess) -> Any:
    """Detector and NMS as one specification."""
    from coremltools.proto import Model_pb2

    whole = Model_pb2.Model()
    whole.specificationVersion = detector.specificationVersion
    whole.description.input.append(detector.description.input[0])
    suppression = _suppression(detector, head, post)
    for name, what in _THRESHOLDS.items():
        entry = whole.description.input.add(name=name)
        entry.shortDescription = f"Boxes are dropped by this {what}; the model's own where it is not given."
        entry.type.doubleType.SetInParent()
        entry.type.isOptional = True
    whole.description.output.extend(suppression.description.output)
    whole.description.metadata.CopyFrom(detector.description.metadata)
    whole.pipeline.models.extend([detector, suppression])
    whole.pipeline.names.extend(["detector", "nms"])
    return whole


def _suppression(detector: Any, head: HeadSpec, post: PostProcess) -> Any:
    """NonMaximumSuppression that reads the detector's two outputs.

    The thresholds are inputs of this model too, as in the detectors of Apple's Turi Create; optional they are
    in the pipeline only, since the format's validator allows this kind of model no optional input.
    """
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.specificationVersion = detector.specificationVersion
    columns = {SCORES: ("confidence", head.class_count), BOXES: ("coordinates", 4)}
    given = {entry.name: entry for entry in detector.description.output}
    for raw, (name, width) in columns.items():
        model.description.input.append(given[raw])
        made = model.description.output.add(name=name)
        array = made.type.multiArrayType
        array.dataType = given[raw].type.multiArrayType.dataType
        for low, high in ((0, -1), (width, width)):
            array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    for name in _THRESHOLDS:
        model.description.input.add(name=name).type.doubleType.SetInParent()
    nms = model.nonMaximumSuppression
    nms.confidenceInputFeatureName, nms.coordinatesInputFeatureName = SCORES, BOXES
    nms.confidenceOutputFeatureName, nms.coordinatesOutputFeatureName = "confidence", "coordinates"
    nms.iouThresholdInputFeatureName, nms.confidenceThresholdInputFeatureName = _THRESHOLDS
    nms.iouThreshold, nms.confidenceThreshold = post.iou, post.confidence
    nms.pickTop.perClass = True
    nms.stringClassLabels.vector.extend(head.class_names)
    return model
