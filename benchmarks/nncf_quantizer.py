"""NNCF as one process of a benchmark: float model and the calibration images of an edgeq bundle to INT8 IR.

Prints one line of JSON. Needs edgeq, openvino and nncf in this interpreter's environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import nncf
import openvino as ov
from openvino_common import calibration_samples, metric_of

from edgeq import api
from edgeq.data.images import read_image
from edgeq.data.preprocess import preprocess

RECIPES = ("ptq", "accuracy-control", "ultralytics")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="float ONNX file, as edgeq got it")
    parser.add_argument(
        "--calib", type=Path, required=True, help="data set that the bundle was calibrated on"
    )
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--max-drop", type=float, default=0.005, help="accuracy control: of the metric, 0..1")
    parser.add_argument("--out", type=Path, required=True, help=".xml to write")
    given = parser.parse_args()
    nncf.set_log_level(40)
    bundle = api.open_bundle(given.bundle)
    samples = calibration_samples(bundle, given.calib)
    spec = bundle.manifest.input
    model = ov.convert_model(str(given.model))
    # Lazily, as its documentation does: the tensors of all images need not be in memory at once.
    images = nncf.Dataset(samples, lambda sample: preprocess(read_image(sample.path), spec)[0])
    names = {op.get_friendly_name() for op in model.get_ops()}
    tail = [str(e["node"]) for e in bundle.manifest.plan["float_ops"] if str(e["reason"]).startswith("tail")]
    settings: dict[str, Any] = {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(samples),
        "ignored_scope": nncf.IgnoredScope(names=sorted(names & set(tail))),
    }
    start = time.perf_counter()
    if given.recipe == "accuracy-control":
        made = nncf.quantize_with_accuracy_control(
            model,
            images,
            nncf.Dataset(samples),
            lambda compiled, subset: metric_of(compiled, list(subset), bundle),
            max_drop=given.max_drop,
            **settings,
        )
    else:
        if given.recipe == "ultralytics":
            settings["ignored_scope"] = _ultralytics_scope(model)
        made = nncf.quantize(model, images, **settings)
    seconds = time.perf_counter() - start
    ov.save_model(made, str(given.out), compress_to_fp16=False)
    print(
        json.dumps(
            {"nncf": nncf.__version__, "openvino": ov.__version__, "quantize_s": round(seconds, 2),
             "images": len(samples), "ignored_count": len(settings["ignored_scope"].names)}
        )
    )  # fmt: skip
    return 0


def _ultralytics_scope(model: ov.Model) -> nncf.IgnoredScope:
    """What Ultralytics 8.4 leaves out: every sigmoid and the whole module of the detection head."""
    ops = model.get_ordered_ops()
    sigmoids = [op.get_friendly_name() for op in ops if op.get_type_name() == "Sigmoid"]
    head = "/".join(sigmoids[-1].split("/")[:2]) + "/"
    names = [op.get_friendly_name() for op in ops]
    return nncf.IgnoredScope(names=sorted({*sigmoids, *(name for name in names if name.startswith(head))}))


if __name__ == "__main__":
    sys.exit(main())
