"""Judges one Core ML bundle on a machine without Core ML; the last line that it prints is JSON.

Op by op, each operation of the saved program fed with the QDQ model's own tensors; then whole programs,
interpreted (not Core ML), against the simulation in ONNX Runtime: the outputs' bits in float32, and in
float16, as the package is, the metric on the same images. Of a detector also the pipeline that
`edgeq export` writes, NMS by the format's documentation: its detections against edgeq's own decoding of the
package with the same thresholds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.bundle.read import Bundle, open_bundle
from edgeq.data.dataset import open_dataset
from edgeq.data.select import select
from edgeq.data.stream import iter_tensors
from edgeq.evaluate.run import Evaluation, compare, evaluate, evaluation_of
from edgeq.model.decode import decode_detections
from edgeq.runtimes import load_runtime
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.coreml.agreement import compare_ops
from edgeq.runtimes.coreml.interpret.detect import detect
from edgeq.runtimes.coreml.interpret.pipeline import Pipeline, load_pipeline
from edgeq.runtimes.coreml.lower import write_package
from edgeq.runtimes.coreml.session import INTERPRETED, open_interpreted
from edgeq.runtimes.coreml.simulate import half_simulation
from edgeq.runtimes.coreml.source import read_source
from edgeq.runtimes.coreml.vision import write_vision
from edgeq.types import Dataset, Detections, HeadFamily, PostProcess

_SAME_BITS_IMAGES = 2
_APP = PostProcess(confidence=0.25, iou=0.45, multi_label=False)
"""What `edgeq export` writes into the model; Core ML's NMS gives a box one class."""
_WITH_NMS = (HeadFamily.YOLOX, HeadFamily.YOLOV5, HeadFamily.YOLOV8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--images", type=int, default=64)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    manifest, qdq = bundle.manifest, bundle.qdq_path
    if qdq is None:
        parser.error(f"{given.bundle} holds no QDQ model")
    data = select(
        open_dataset(given.labels, split="val", class_names=manifest.head.class_names), given.images
    )
    model = qdq.read_bytes()
    tensors = [tensor for _, tensor, _ in iter_tensors(data.samples[:_SAME_BITS_IMAGES], manifest.input)]
    found: dict[str, Any] = {"image_count": len(data.samples), "executed_by": INTERPRETED}
    with tempfile.TemporaryDirectory() as folder:
        for half in (False, True):
            key = "float16" if half else "float32"
            agreement = compare_ops(model, Path(folder) / f"{key}.mlpackage", tensors[0], half=half)
            found[key] = {
                "quantize_count": agreement.counts["quantize"],
                "quantised_value_count": agreement.quantised_count,
                "flip_count": agreement.flips,
                "worst_product_error": agreement.worst(products=True),
                "worst_other_error": agreement.worst(products=False),
            }
        plain = write_package(
            read_source((given.bundle / "reference" / "float.onnx").read_bytes()),
            Path(folder) / "plain.mlpackage",
            half=False,
        )
        found["size_mb"], found["float32_size_mb"] = bundle.artifact_size_mb, plain.size_mb
        post = manifest.postprocess or PostProcess()
        settings = {"spec": manifest.input, "head": manifest.head, "post": post, "workers": 1}
        options = SessionOptions()
        onnxruntime, stored = load_runtime("onnxruntime"), Path(folder) / "simulated.onnx"
        stored.write_bytes(half_simulation(model))
        simulation = onnxruntime.open_session(qdq, options=options)
        exact = open_interpreted(Path(folder) / "float32.mlpackage", options)
        found["float32"]["largest_output_difference"] = max(
            float(np.abs(value - simulation.infer(tensor)[name]).max())
            for tensor in tensors
            for name, value in exact.infer(tensor).items()
        )
        simulated = evaluate(onnxruntime.open_session(stored, options=options), data, **settings)
        plain = evaluate(simulation, data, **settings)
        found["float32"]["above_float16_points"] = compare(plain, simulated).drop_points
        interpreted = evaluate(open_interpreted(bundle.artifact_path, options), data, **settings)
        difference = compare(simulated, interpreted)
        found["float16"]["below_simulation_points"] = difference.drop_points
        found["float16"]["below_simulation_interval_points"] = list(difference.drop_interval_points)
        if manifest.head.family in _WITH_NMS:
            app = Path(folder) / "app.mlpackage"
            write_vision(model, app, spec=manifest.input, head=manifest.head, post=_APP)
            found["pipeline"] = _pipeline(load_pipeline(app), bundle, data, interpreted)
    print(json.dumps(found))


def _pipeline(pipeline: Pipeline, bundle: Bundle, data: Dataset, usual: Evaluation) -> dict[str, Any]:
    """The app's model against edgeq's decoding of the bundle's own package, both interpreted."""
    spec, head = bundle.manifest.input, bundle.manifest.head
    package = open_interpreted(bundle.artifact_path, SessionOptions())
    whole = replace(_APP, confidence=usual.post.confidence, iou=usual.post.iou)
    found: dict[str, Any] = {}
    ours, theirs = [], []
    for _, tensor, geometry in iter_tensors(data.samples, spec, workers=1):
        outputs = package.infer(tensor)
        for name, post, given in (
            ("own_thresholds", _APP, {}),
            ("given_thresholds", whole, {"iou": whole.iou, "confidence": whole.confidence}),
        ):
            limit = post.max_detections
            first = decode_detections(outputs, head=head, spec=spec, geometry=geometry, post=post)
            second = detect(pipeline, tensor, spec=spec, geometry=geometry, limit=limit, **given)
            _add(found.setdefault(name, {}), first, second)
        ours.append(first)
        theirs.append(second)
    ours, theirs = (
        evaluation_of(each, data, head=head, post=whole, session_details=package.details)
        for each in (ours, theirs)
    )
    found["map50_95"] = theirs.metrics.map50_95
    found["below_package_points"] = compare(ours, theirs).drop_points
    found["map50_95_of_several_classes_per_box"] = usual.metrics.map50_95
    return found


def _add(found: dict[str, Any], first: Detections, second: Detections) -> None:
    """Count the detections of one image and how far apart the two ways are."""
    same = np.array_equal(first.class_ids, second.class_ids)
    found["detection_count"] = found.get("detection_count", 0) + len(first.scores)
    found["image_count_with_others"] = found.get("image_count_with_others", 0) + (not same)
    for name, one, two in (
        ("largest_score_difference", first.scores, second.scores),
        ("largest_box_difference_px", first.boxes_xyxy, second.boxes_xyxy),
    ):
        difference = float(np.abs(one - two).max(initial=0)) if same else 0.0
        found[name] = max(found.get(name, 0.0), difference)


if __name__ == "__main__":
    main()
