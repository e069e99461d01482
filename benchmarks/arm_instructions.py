"""Instructions per inference on ARM, float against INT8 .tflite, and whether INT8 equals x86 to the bit.

Every model is quantised by `edgeq quantize` for a target of the runtime tflite; its INT8 and its float file
then run as aarch64 code under qemu (tools/arm), on several CPUs. Rows that the result file holds already are
kept unless --again is given. Needs `python -m tools.arm make` once.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import numpy.typing as npt
from common import FailedError
from models import MODELS

sys.path.insert(0, str(common.ROOT))

from edgeq import api
from edgeq.bundle.read import Bundle
from edgeq.data.stream import iter_tensors
from edgeq.errors import EdgeqError
from edgeq.runtimes.tflite.integer_part import integer_part
from edgeq.types import Layout
from tools.arm.cache import Environment, require
from tools.arm.cpu import CPUS
from tools.arm.install_size import install_size
from tools.arm.instructions import qemu_version
from tools.arm.models import count_model, run_model
from tools.arm.user_mode import ArmProgramError, check_user_mode

AIMS = {("yolox-nano-416", "cortex-a76"): 0.47, ("yolox-nano-416", "cortex-a72"): 0.72}
"""INT8's share of float's instructions, at most."""
_COUNTED_RUNS = 2


def main() -> int:
    parser = common.arguments(__doc__, "arm_instructions")
    parser.add_argument("--models", help=f"some of {', '.join(MODELS)}, with commas between")
    parser.add_argument("--cpus", default=",".join(CPUS), help="some of %(default)s, with commas between")
    parser.add_argument("--target", default="raspberry-pi-5", help="profile to quantise for (%(default)s)")
    parser.add_argument(
        "--bundles",
        type=Path,
        metavar="DIR",
        help="keep bundles here, named by model; those that it has are used",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=4,
        help="on which INT8 is compared with x86; 0: not at all (%(default)s)",
    )
    parser.add_argument("--install-size", action="store_true", help="measure only what a device installs")
    parser.add_argument("--again", action="store_true", help="measure also what the result file holds")
    given = parser.parse_args()
    names = given.models.split(",") if given.models else list(MODELS)
    cpus = given.cpus.split(",")
    unknown = [name for name in names if name not in MODELS] + [cpu for cpu in cpus if cpu not in CPUS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join((*MODELS, *CPUS))}")
    try:
        environment = require()
        check_user_mode()
        if given.install_size:
            return _write_install_size(given.out, environment)
        return _measure(given, names, cpus, environment)
    except (ArmProgramError, EdgeqError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _measure(given: Any, names: list[str], cpus: list[str], environment: Environment) -> int:
    document = _earlier(given.out)
    rows: dict[str, Any] = {row["model"]: row for row in document.get("rows", [])}
    failed = False
    with tempfile.TemporaryDirectory(prefix="edgeq-arm-bench-") as scratch:
        for name in names:
            row = {} if given.again else rows.get(name, {})
            todo = [cpu for cpu in cpus if cpu not in row.get("cpus", {})]
            if not todo:
                continue
            try:
                bundle = _bundle(name, given.bundles or Path(scratch), given.data, target=given.target)
                fresh = _row(name, bundle, given.data, cpus=todo, images=given.images)
            except (FailedError, ArmProgramError, EdgeqError) as error:
                sys.stderr.write(f"{name}: {error}\n")
                failed = True
                continue
            same = row.get("int8_sha256") == fresh["int8_sha256"]
            merged = {**row["cpus"], **fresh["cpus"]} if same else fresh["cpus"]
            rows[name] = {**fresh, "cpus": merged}
            failed |= any(found["int8_identical_to_host"] is False for found in merged.values())
            document = {
                **document,
                **_conditions(environment),
                "rows": [rows[key] for key in MODELS if key in rows],
            }
            common.write(given.out, document)
            _show(rows[name])
    return int(failed)


def _bundle(name: str, folder: Path, data: Path, *, target: str) -> Bundle:
    """The model's bundle, made unless the folder has it."""
    model, where = MODELS[name], folder / name
    if not where.is_dir():
        calib = ["--target", target, "--calib", data / model.calib]
        common.edgeq(
            "quantize", data / model.source, *calib, *model.quantize_flags, "-o", where, empty_cache=False
        )
    return api.open_bundle(where)


def _row(name: str, bundle: Bundle, data: Path, *, cpus: list[str], images: int) -> dict[str, Any]:
    """Counts and comparison of one model on the given CPUs."""
    int8, float32 = bundle.artifact_path, bundle.float_artifact_path
    if float32 is None:
        raise FailedError(f"the bundle of {name} has no float {int8.suffix} to compare with")
    inputs = _inputs(bundle, data / MODELS[name].labels, count=max(images, 1))
    found = {}
    for cpu in cpus:
        counts = {
            form: count_model(path, inputs[0], cpu=cpu, runs=_COUNTED_RUNS)
            for form, path in (("float", float32), ("int8", int8))
        }
        aim = AIMS.get((name, cpu))
        ratio = min(counts["int8"]) / min(counts["float"])
        found[cpu] = {
            "board": CPUS[cpu].board,
            "float_instructions": counts["float"],
            "int8_instructions": counts["int8"],
            "ratio": round(ratio, 4),
            "aim_ratio": aim,
            "aim_met": None if aim is None else ratio <= aim,
            "int8_identical_to_host": _identical(int8, inputs, cpu=cpu) if images else None,
            "image_count": images,
        }
    return {
        "model": name,
        "target": bundle.manifest.target,
        "int8_sha256": bundle.manifest.files[bundle.manifest.artifact].sha256,
        "int8_size_mb": round(int8.stat().st_size / 1e6, 3),
        "cpus": found,
    }


def _inputs(bundle: Bundle, labels: Path, *, count: int) -> npt.NDArray[Any]:
    """(n, 1, h, w, 3): TFLite's layout, whatever the source's was."""
    samples = api.open_dataset(labels).samples[:count]
    spec = replace(bundle.manifest.input, layout=Layout.NHWC)
    return np.stack([tensor for _, tensor, _ in iter_tensors(samples, spec)])


def _identical(int8: Path, inputs: npt.NDArray[Any], *, cpu: str) -> bool:
    """Whether all integers that leave the INT8 part are the host's."""
    with tempfile.TemporaryDirectory(prefix="edgeq-arm-ends-") as name:
        part = integer_part(int8, Path(name))
        if part is None:
            raise FailedError(f"{int8} computes nothing in INT8")
        here, there = (run_model(part.path, inputs, cpu=kind) for kind in (None, cpu))
    return all(
        np.array_equal(ours[key], theirs[key])
        for ours, theirs in zip(here.outputs, there.outputs, strict=True)
        for key in part.ends
    )


def _conditions(environment: Environment) -> dict[str, Any]:
    facts = environment.facts()
    wheels = {name: facts["wheels"][name] for name in ("ai-edge-litert", "numpy")}
    return {
        "conditions": common.conditions(),
        "arm": {"qemu": qemu_version(), "release": facts["release"], "python": facts["python"], **wheels},
    }


def _write_install_size(out: Path, environment: Environment) -> int:
    measured = install_size(environment)
    document = {
        **_earlier(out),
        "install": {
            "command": 'pip install "edgeq[tflite]"',
            "installed_mb": measured.installed_mb,
            "downloaded_mb": measured.downloaded_mb,
            "packages_mb": measured.packages,
            "versions": environment.facts()["wheels"],
        },
    }
    common.write(out, document)
    sys.stdout.write(json.dumps(document["install"], indent=1) + "\n")
    return 0


def _earlier(out: Path) -> dict[str, Any]:
    return json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}


def _show(row: dict[str, Any]) -> None:
    for cpu, found in row["cpus"].items():
        float_m, int8_m = (min(found[f"{form}_instructions"]) / 1e6 for form in ("float", "int8"))
        same = {True: "equal", False: "DIFFERENT", None: "not compared"}[found["int8_identical_to_host"]]
        sys.stdout.write(
            f"{row['model']:24} {cpu:11} float {float_m:8.1f} M  int8 {int8_m:8.1f} M  "
            f"ratio {found['ratio']:.3f}  x86: {same}\n"
        )


if __name__ == "__main__":
    sys.exit(main())
