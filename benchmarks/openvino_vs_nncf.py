"""edgeq against NNCF on OpenVINO: accuracy, speed and cost, same images, same evaluation, one run.

Both get the same ONNX file, exported before the clocks start, and neither evaluates while its clock runs
(accuracy control apart, which has to). They quantise in turns, forwards and backwards; each one's cost is
that of its fastest round, with the others kept beside it.

One row per model; rows that the result file holds already are kept unless --again is given.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
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
        ("--calib-images", "64", "--preset", "tf-lite"),
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
        "--rounds", type=int, default=2, help="of quantising with each, accuracy control once"
    )
    parser.add_argument(
        "--accuracy-control", default="yolox-nano-416,yolov5n-416", metavar="MODELS",
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
    flags = list(model.quantize_flags)
    if given.quick and "--calib-images" not in flags:
        flags += ["--calib-images", str(_QUICK_CALIBRATION)]
    with tempfile.TemporaryDirectory() as name_:
        folder = Path(name_)
        if source.suffix == ".pt":
            exported = common.run([sys.executable, HERE / "export_onnx.py", source, folder])
            source = Path(exported.last_line()["onnx"])
        recipes = _recipes(name, model, given)
        contest = _Contest(source, calib, folder, tuple(flags), given.python)
        costs = _in_turns(["edgeq", *recipes], contest.cost, rounds=1 if given.quick else given.rounds)
        bundle = contest.bundle(0)
        report = common.report(bundle, "quantization")
        models = [f"{_shown(recipe)}={contest.model(recipe, 0)}" for recipe in recipes]
        limit = ["--images", str(_QUICK_IMAGES)] if given.quick else []
        judged = common.run(
            [sys.executable, HERE / "openvino_judge.py", "--bundle", bundle, "--calib", calib,
             "--labels", labels,
             "--duration", str(2.0 if given.quick else given.duration), *limit, *models]
        ).last_line()  # fmt: skip
    return {
        "name": name,
        "source": Path(model.source).name,
        "quick": given.quick,
        **start,
        **judged,
        "quantize": costs,
        "calibration_image_count": report["image_count"],
        "predicted_drop_points": report["predicted_drop_points"],
        "tuning": report["tuning"],
    }


@dataclass(frozen=True)
class _Contest:
    """One model quantised by each, on the same images; the models of round 0 are the ones that are judged."""

    source: Path
    calib: Path
    folder: Path
    flags: tuple[str, ...]
    python: Path

    def bundle(self, number: int) -> Path:
        """What edgeq makes in a round."""
        return self.folder / f"bundle-{number}"

    def model(self, recipe: str, number: int) -> Path:
        """What NNCF makes in a round."""
        return self.folder / f"{recipe}-{number}.xml"

    def cost(self, contestant: str, number: int) -> dict[str, Any]:
        """Quantise; what that cost."""
        if contestant == "edgeq":
            out = self.bundle(number)
            made = common.edgeq(
                "quantize", self.source, "--target", TARGET, "--calib", self.calib, "-o", out, *self.flags
            )
            return {**made.cost(), "timings_s": common.report(out, "quantization")["timings_s"]}
        finished = common.run(
            [self.python, HERE / "nncf_quantizer.py", "--bundle", self.bundle(0), "--model", self.source,
             "--calib", self.calib, "--recipe", contestant, "--out", self.model(contestant, number)],
            environment={"CI": "true"},
        )  # fmt: skip
        return {**finished.cost(), **finished.last_line()}


def _in_turns(
    contestants: list[str], cost_of: Callable[[str, int], dict[str, Any]], *, rounds: int
) -> dict[str, Any]:
    """Cost of each: its fastest round, the wall times of all of them beside it.

    edgeq's first round comes first, for NNCF's processes read the calibration images from its bundle.
    """
    found: dict[str, list[dict[str, Any]]] = {contestant: [] for contestant in contestants}
    for number in range(rounds):
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            if number == 0 or contestant != "accuracy-control":
                found[contestant].append(cost_of(contestant, number))
    return {
        _shown(contestant): {
            **min(costs, key=lambda cost: float(cost["wall_s"])),
            "rounds_wall_s": [cost["wall_s"] for cost in costs],
        }
        for contestant, costs in found.items()
    }


def _shown(contestant: str) -> str:
    return {"edgeq": "edgeq", "ptq": "nncf"}.get(contestant, f"nncf {contestant}")


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
