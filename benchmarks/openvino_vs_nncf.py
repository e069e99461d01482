"""edgeq against NNCF on OpenVINO: accuracy, speed and cost, same images, same evaluation, one run.

One row per model; rows that the result file holds already are kept unless --again is given.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

HERE = Path(__file__).resolve().parent
TARGET = "intel-vnni"
_QUICK_IMAGES, _QUICK_CALIBRATION = 48, 32


@dataclass(frozen=True)
class Model:
    """A model of the shared data and how it is told to edgeq."""

    source: str
    calib: str = common.COCO
    labels: str = common.COCO_LABELS
    quantize_flags: tuple[str, ...] = ()
    ultralytics: bool = True
    """Whether its nodes have Ultralytics' names, by which its exporter's settings find the head."""


MODELS = {
    "yolox-nano-416": Model(common.YOLOX_NANO, ultralytics=False),
    "yolov5n-416": Model("models/yolov5n_coco_fp32_416.onnx"),
    "yolov5n-640": Model("models/yolov5n_coco_fp32_640.onnx"),
    "yolov8n-640": Model("models/yolov8n_coco.pt"),
    "yolo11n-640": Model("models/yolo11n_coco.pt"),
    "efficientnet-lite0-224": Model(
        "models/efficientnet_lite0_imagenet_fp32_224.onnx",
        common.IMAGENET,
        common.IMAGENET,
        ("--calib-images", "64", "--preset", "tf-lite", "--eval", "{data}/" + common.IMAGENET),
        ultralytics=False,
    ),
}


def main() -> int:
    parser = common.arguments(__doc__, "openvino_vs_nncf")
    common.model_flags(parser, MODELS)
    parser.add_argument(
        "--quick", action="store_true", help="few images and short timing: a try, not a result"
    )
    parser.add_argument("--duration", type=float, default=20.0, help="of each model's timing, seconds")
    parser.add_argument(
        "--accuracy-control", default="yolox-nano-416", metavar="MODELS",
        help="models for NNCF's accuracy control too, which takes minutes each; 'none': no model",
    )  # fmt: skip
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable),
        help="interpreter with edgeq, openvino and nncf; this one by default",
    )  # fmt: skip
    given = parser.parse_args()
    return common.measure_models(parser, given, MODELS, lambda name: _row(name, given), _lines)


def _row(name: str, given: Any) -> dict[str, Any]:
    """Quantise with each, then score and time all side by side."""
    model, start = MODELS[name], common.conditions()
    source, calib, labels = (given.data / part for part in (model.source, model.calib, model.labels))
    flags = [flag.format(data=given.data) for flag in model.quantize_flags]
    if given.quick and "--calib-images" not in flags:
        flags += ["--calib-images", str(_QUICK_CALIBRATION)]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        made = common.edgeq("quantize", source, "--target", TARGET, "--calib", calib, "-o", bundle, *flags)
        report = common.report(bundle, "quantization")
        costs: dict[str, Any] = {"edgeq": {**made.cost(), "timings_s": report["timings_s"]}}
        models = []
        for recipe in _recipes(name, model, given):
            out = Path(folder) / f"{recipe}.xml"
            finished = common.run(
                [given.python, HERE / "nncf_quantizer.py", "--bundle", bundle, "--calib", calib,
                 "--recipe", recipe, "--out", out],
                environment={"CI": "true"},
            )  # fmt: skip
            shown = "nncf" if recipe == "ptq" else f"nncf {recipe}"
            costs[shown] = {**finished.cost(), **finished.last_line()}
            models.append(f"{shown}={out}")
        limit = ["--images", str(_QUICK_IMAGES)] if given.quick else []
        judged = common.run(
            [sys.executable, HERE / "openvino_judge.py", "--bundle", bundle, "--calib", calib,
             "--labels", labels,
             "--duration", str(2.0 if given.quick else given.duration), *limit, *models]
        ).last_line()  # fmt: skip
    return {
        "name": name,
        "source": source.name,
        "quick": given.quick,
        **start,
        **judged,
        "quantize": costs,
        "calibration_image_count": report["image_count"],
        "predicted_drop_points": report["predicted_drop_points"],
        "tuning": report["tuning"],
    }


def _recipes(name: str, model: Model, given: Any) -> list[str]:
    chosen = ["ptq", *(["ultralytics"] if model.ultralytics else [])]
    controlled = not given.quick and name in given.accuracy_control.split(",")
    return [*chosen, *(["accuracy-control"] if controlled else [])]


def _lines(row: dict[str, Any]) -> str:
    accuracy, latency = row["accuracy"], row["latency"]
    times = latency["contestants"]
    head = f"{row['name']}: {accuracy['metric']} {accuracy['float']:.4f}, {row['image_count']} images"
    lines = [head + (" (quick: no result)" if row["quick"] else "")]
    for name, cost in row["quantize"].items():
        found = accuracy[name]
        low, high = found["drop_interval_points"]
        ratio = times["float32"]["cpu_ms"] / times[name]["cpu_ms"]
        against = times[name]["cpu_ms"] / times["nncf"]["cpu_ms"]
        lines.append(
            f"  {name:22} drop {found['drop_points']:5.2f} [{low:.2f}, {high:.2f}]; "
            f"CPU {times[name]['cpu_ms']:.2f} ms, {ratio:.2f}x of float32, {against:.3f} of NNCF's; "
            f"INT8 {row['int8_convolutions'][name]}; {cost['wall_s']:.1f} s, {cost['peak_rss_mb']:.0f} MB"
        )
    floats = ", ".join(f"{key} {times[key]['cpu_ms']:.2f} ms" for key in ("float32", "default-float"))
    return "\n".join([*lines, f"  {floats} ({latency['default_float']})"])


if __name__ == "__main__":
    sys.exit(main())
