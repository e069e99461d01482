"""INT8 .tflite files of edgeq, of onnx2tf with ai-edge-quantizer, and of Ultralytics, side by side.

Same models, same calibration images, same evaluation and timing. Each peer runs in a virtual environment of
its own, made on the first run. One row per model and contender; rows that the result file holds already are
kept unless --again is given. A peer that fails or cannot run here has a row that says why.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import models
import peer_environments
from common import FailedError
from peer_environments import Installed, MissingError

HERE = Path(__file__).resolve().parent
TARGET = "x86-tflite"
BY_HAND = {
    "yolox-nano-416": ("--float-stem", "2", "--float-tail"),
    "yolov5n-416": ("--float-tail",),
    "yolov8n-640": ("--float-tail",),
    "yolo11n-640": ("--float-tail",),
}
"""What a user of ai-edge-quantizer finds by trying: where to keep float, per model."""
_EXCEPTION = re.compile(r"[\w.]+(Error|Exception): ")
MODELS = {name: models.MODELS[name] for name in BY_HAND}


@dataclass
class Making:
    """What the contenders make their files from; the folder is gone afterwards."""

    name: str
    folder: Path
    source: Path
    """The model as the user has it, ``.onnx`` or ``.pt``."""
    bundle: Path
    images: dict[str, Any]
    """Of ``peer_images.py``: count, input name and size."""
    python312: Path | None
    edgeq_cost: dict[str, Any]
    converted: tuple[Path, dict[str, Any]] | None = None
    """onnx2tf's float file and what it took, once made."""
    environments: dict[str, Installed] = field(default_factory=dict)

    @property
    def reference(self) -> Path:
        """The float model that everything is compared with."""
        return self.bundle / "reference" / "float.onnx"

    @property
    def onnx(self) -> Path:
        """The source for what reads ONNX only."""
        return self.source if self.source.suffix == ".onnx" else self.reference

    @property
    def tensors(self) -> Path:
        return self.folder / "calibration.npy"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    def environment(self, name: str) -> Installed:
        """A peer's environment, made where it is not there.

        Raises:
            MissingError: it cannot be had here.
            FailedError: pip failed.
        """
        if name not in self.environments:
            self.environments[name] = peer_environments.environment(name, python312=self.python312)
        return self.environments[name]


@dataclass(frozen=True)
class Made:
    """A contender's INT8 file."""

    path: Path
    steps: dict[str, dict[str, Any]]
    """What each process took."""
    environments: tuple[str, ...] = ()


def _edgeq(making: Making) -> Made:
    return Made(making.bundle / "model.tflite", {"edgeq quantize": making.edgeq_cost})


def _onnx2tf(making: Making) -> tuple[Path, dict[str, Any]]:
    """The float file by onnx2tf's path without TensorFlow."""
    if making.converted is None:
        out = making.folder / "onnx2tf"
        program = making.environment("onnx2tf").program("onnx2tf")
        cost = common.run([program, "-i", making.onnx, "-o", out, "-n"]).cost()
        making.converted = next(out.glob("*_float32.tflite")), cost
    return making.converted


def _onnx2tf_int8(making: Making) -> Made:
    """onnx2tf's own quantiser; mean 0 and deviation 1, since the images are pre-processed."""
    out, zero, one = making.folder / "onnx2tf-int8", "[[[[0,0,0]]]]", "[[[[1,1,1]]]]"
    finished = common.run(
        [making.environment("onnx2tf").program("onnx2tf"), "-i", making.onnx, "-o", out, "-n", "-oiqt",
         "-cind", making.images["input"], making.tensors, zero, one]
    )  # fmt: skip
    (path,) = [p for p in out.glob("*_integer_quant.tflite") if "full" not in p.name]
    return Made(path, {"onnx2tf": finished.cost()}, ("onnx2tf",))


def _ai_edge_quantizer(making: Making, *flags: str) -> Made:
    source, converted = _onnx2tf(making)
    out = making.folder / f"ai-edge-quantizer{len(flags)}.tflite"
    finished = common.run(
        [making.environment("ai-edge-quantizer").program("python"), HERE / "peer_ai_edge_quantizer.py",
         source, out, "--images", making.tensors, *flags]
    )  # fmt: skip
    steps = {"onnx2tf": converted, "ai-edge-quantizer": {**finished.cost(), **finished.last_line()}}
    return Made(out, steps, ("onnx2tf", "ai-edge-quantizer"))


def _by_hand(making: Making) -> Made:
    return _ai_edge_quantizer(making, *BY_HAND[making.name])


def _ultralytics(making: Making) -> Made:
    source = making.folder / making.source.name
    shutil.copyfile(making.source, source)
    finished = common.run(
        [making.environment("ultralytics").program("python"), HERE / "peer_ultralytics.py", source,
         "--data", making.dataset / "data.yaml", "--imgsz", str(making.images["imgsz"])],
        # It would install packages, ask the network, and keep settings in the user's home.
        environment={
            "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "CUDA_VISIBLE_DEVICES": "",
            "YOLO_CONFIG_DIR": str(making.folder),
        },
    )  # fmt: skip
    return Made(Path(finished.last_line()["path"]), {"ultralytics": finished.cost()}, ("ultralytics",))


CONTENDERS: dict[str, Callable[[Making], Made]] = {
    "edgeq": _edgeq,
    "onnx2tf": _onnx2tf_int8,
    "onnx2tf+ai-edge-quantizer": _ai_edge_quantizer,
    "onnx2tf+ai-edge-quantizer by hand": _by_hand,
    "ultralytics-litert": _ultralytics,
}


def main() -> int:
    parser = common.arguments(__doc__, "tflite_peers")
    parser.add_argument("--models", help=f"some of {', '.join(MODELS)}, with commas between")
    parser.add_argument("--contenders", help=f"some of {', '.join(CONTENDERS)}, with commas between")
    parser.add_argument("--again", action="store_true", help="measure also what the result file holds")
    parser.add_argument("--duration", default="20s", help="of each bench")
    parser.add_argument("--images", type=int, help="evaluate on so many only: a try, not a result")
    parser.add_argument("--python312", type=Path, help="Python 3.12 for onnx2tf; python3.12 of the PATH")
    given = parser.parse_args()
    names = _chosen(parser, given.models, MODELS)
    contenders = _chosen(parser, given.contenders, CONTENDERS)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if given.out.is_file():
        earlier = json.loads(given.out.read_text(encoding="utf-8"))["rows"]
        rows = {(row["name"], row["contender"]): row for row in earlier}
    failed = False
    for name in names:
        missing = [
            who
            for who in contenders
            if _applies(who, name) and (given.again or not _settled(rows.get((name, who))))
        ]
        if not missing:
            continue
        with tempfile.TemporaryDirectory(prefix="edgeq-peers-") as folder:
            try:
                making = _prepare(name, Path(folder), given)
            except FailedError as error:
                failed = True
                print(f"{name}: {error}", file=sys.stderr)
                continue
            for who in missing:
                try:
                    rows[name, who] = _row(making, who, given)
                except FailedError as error:
                    failed = True
                    print(f"{name}, {who}: {error}", file=sys.stderr)
                    continue
                common.write(given.out, {"rows": _ordered(rows)})
    for row in _ordered(rows):
        print(_line(row))
    return 1 if failed else 0


def _chosen(parser: argparse.ArgumentParser, given: str | None, known: dict[str, Any]) -> list[str]:
    names = given.split(",") if given else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _ordered(rows: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[name, who] for name in MODELS for who in CONTENDERS if (name, who) in rows]


def _applies(who: str, name: str) -> bool:
    """Ultralytics exports its own checkpoints only."""
    return who != "ultralytics-litert" or MODELS[name].source.endswith(".pt")


def _settled(row: dict[str, Any] | None) -> bool:
    """Not to be tried again: what lacked its environment is."""
    return row is not None and row["status"] != "not run"


def _prepare(name: str, folder: Path, given: argparse.Namespace) -> Making:
    """edgeq's bundle, which has the float model and the list of images, and the images for the others."""
    model = MODELS[name]
    source, calib, bundle = given.data / model.source, given.data / model.calib, folder / "bundle"
    made = common.edgeq("quantize", source, "--target", TARGET, "--calib", calib, "-o", bundle)
    written = common.run(
        [sys.executable, HERE / "peer_images.py", bundle, "--calib", calib,
         "--tensors", folder / "calibration.npy", "--dataset", folder / "dataset"]
    )  # fmt: skip
    return Making(name, folder, source, bundle, written.last_line(), given.python312, made.cost())


def _row(making: Making, who: str, given: argparse.Namespace) -> dict[str, Any]:
    """Make one contender's file and judge it as any user's file.

    Raises:
        FailedError: of the judging; a contender that makes no file has its row.
    """
    start = {"name": making.name, "contender": who, "source": making.source.name, **common.conditions()}
    try:
        made = CONTENDERS[who](making)
    except MissingError as error:
        return {**start, "status": "not run", "reason": str(error)}
    except FailedError as error:
        return {**start, "status": "failed", "reason": _reason(error)}
    labels = given.data / MODELS[making.name].labels
    limit = ["--images", str(given.images)] if given.images else []
    against = ["--float", str(making.reference)]
    accuracy = common.edgeq("evaluate", made.path, *against, "--data", labels, *limit).json()
    layers = common.edgeq("audit", made.path).json()["layers"]
    before = common.conditions()["load_average"]
    latency = common.edgeq("bench", made.path, *against, "--duration", given.duration).json()
    convolutions = [layer["precision"] for layer in layers if layer["op"] == "Conv"]
    return {
        **start,
        "status": "measured",
        **models.accuracy(accuracy),
        "int8_conv_count": convolutions.count("int8"),
        "conv_count": len(convolutions),
        "latency": {"load_average": before, "baseline": "edgeq's float32 .tflite", **models.latency(latency)},
        "conversion": {
            "wall_s": round(sum(step["wall_s"] for step in made.steps.values()), 2),
            "peak_rss_mb": max(step["peak_rss_mb"] for step in made.steps.values()),
            "calibration_image_count": making.images["image_count"],
            "steps": made.steps,
        },
        "environments": {name: making.environment(name).facts for name in made.environments},
    }


def _reason(error: FailedError) -> str:
    """The exception that all began with, else the last line."""
    lines = [line.strip() for line in (error.output or str(error)).splitlines() if line.strip()]
    raised = [line for line in lines if _EXCEPTION.match(line)]
    return (raised or lines[-1:] or [str(error)])[0][:300]


def _line(row: dict[str, Any]) -> str:
    head = f"{row['name']:15} {row['contender']:34}"
    if row["status"] != "measured":
        return f"{head} {row['status']}: {row['reason']}"
    low, high = row["drop_interval_points"]
    latency, cost = row["latency"], row["conversion"]
    return (
        f"{head} {row['metric']} {row['float_metric']:.4f} -> {row['int8_metric']:.4f}, "
        f"drop {row['drop_points']:5.2f} [{low:.2f}, {high:.2f}]; CPU {latency['cpu_ratio']:.2f}x; "
        f"{row['int8_size_mb']:.2f} MB; INT8 {row['int8_conv_count']}/{row['conv_count']} conv; "
        f"made in {cost['wall_s']:.0f} s, {cost['peak_rss_mb']:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
