"""A detector small enough for the whole command line in seconds, and images for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.cli.main import main

ROOT = Path(__file__).parents[2]
SIDE = 64
CLASSES = ("bolt", "nut")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("EDGEQ_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"shared test data not found at {folder} (set EDGEQ_SHARED_DATA)")
    return folder


def _conv(name, source, target, shape, *, rng, stride=1, group=1):
    weight = rng.normal(0, 0.4, shape).astype(np.float32)
    tensors = [
        numpy_helper.from_array(weight, f"{name}.w"),
        numpy_helper.from_array(rng.normal(0, 0.1, shape[0]).astype(np.float32), f"{name}.b"),
    ]
    pad = shape[2] // 2
    node = helper.make_node(
        "Conv", [source, f"{name}.w", f"{name}.b"], [target], name=name, strides=[stride] * 2,
        pads=[pad] * 4, kernel_shape=list(shape[2:]), group=group,
    )  # fmt: skip
    return node, tensors


def make_detector(*, side: int | str = SIDE, inputs: int = 1, classes=CLASSES, size: int = SIDE):
    """A detector with a YOLOv8 head: two convolutions, a depthwise one, a prediction layer at stride 8."""
    rng = np.random.default_rng(0)
    channels = 4 + len(classes)
    parts = [
        _conv("stem", "images", "a", (8, 3, 3, 3), rng=rng, stride=2),
        _conv("down", "a_silu", "b", (16, 8, 3, 3), rng=rng, stride=2),
        _conv("depth", "b_relu", "c", (16, 1, 3, 3), rng=rng, stride=2, group=16),
        _conv("predict", "c_relu", "d", (channels, 16, 1, 1), rng=rng),
    ]
    stem, down, depth, predict = (node for node, _ in parts)
    tensors = [tensor for _, made in parts for tensor in made]
    cells = (size // 8) ** 2
    tensors.append(numpy_helper.from_array(np.array([1, channels, cells], np.int64), "shape"))
    scale = np.array([float(size)] * 4 + [1.0] * len(classes), np.float32).reshape(1, channels, 1)
    tensors.append(numpy_helper.from_array(scale, "scale"))
    nodes = [
        stem, helper.make_node("Sigmoid", ["a"], ["a_gate"], name="gate"),
        helper.make_node("Mul", ["a", "a_gate"], ["a_silu"], name="silu"),
        down, helper.make_node("Relu", ["b"], ["b_relu"], name="relu1"),
        depth, helper.make_node("Relu", ["c"], ["c_relu"], name="relu2"),
        predict, helper.make_node("Reshape", ["d", "shape"], ["flat"], name="flat"),
        helper.make_node("Sigmoid", ["flat"], ["shares"], name="shares"),
        helper.make_node("Mul", ["shares", "scale"], ["output0"], name="out"),
    ]  # fmt: skip
    images = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])]
    images += [
        helper.make_tensor_value_info(f"more{n}", TensorProto.FLOAT, [1, 3, side, side])
        for n in range(inputs - 1)
    ]
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, channels, cells])
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", images, [output], tensors),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    helper.set_model_props(model, {"task": "detect", "names": str(dict(enumerate(classes))), "stride": "8"})
    return model


@pytest.fixture
def detector(tmp_path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(make_detector(), path)
    return path


@pytest.fixture
def data_yaml(tmp_path) -> Path:
    """20 images to calibrate, 8 to evaluate, one box in each."""
    return make_data(tmp_path / "set")


def make_data(
    folder: Path, *, train: int = 20, val: int = 8, label: str = "0 0.5 0.5 0.4 0.4\n", names=CLASSES
) -> Path:
    number = 0
    for split, count in (("train", train), ("val", val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for _ in range(count):
            number += 1
            picture = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            picture = cv2.resize(picture, (96, 72), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(images / f"{number:03}.png"), picture)
            (labels / f"{number:03}.txt").write_text(label)
    path = folder / "data.yaml"
    path.write_text(f"path: .\ntrain: images/train\nval: images/val\nnames: {json.dumps(list(names))}\n")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def edgeq(capsys):
    """Run a command in this process."""

    def run(*arguments) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def start_edgeq(*arguments, **options):
    """The real command in a process of its own."""
    command = [sys.executable, "-m", "edgeq.cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def run_edgeq(*arguments, **options) -> Result:
    process = start_edgeq(*arguments, **options)
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def quantize_arguments(detector, data_yaml, out, *more):
    return (
        "quantize", detector, "--target", "x86-onnxruntime", "--calib", data_yaml, "-o", out,
        "--skip-fit-check", *more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def made_bundle(tmp_path_factory):
    """A bundle of the tiny detector, made once; copy it before writing into it."""
    folder = tmp_path_factory.mktemp("made")
    onnx.save(make_detector(), folder / "tiny.onnx")
    data = make_data(folder / "set")
    code = main(
        [
            str(a)
            for a in (*quantize_arguments(folder / "tiny.onnx", data, folder / "bundle", "--no-cache", "-q"),)
        ]
    )
    assert code == 0
    return folder / "bundle", data, folder / "tiny.onnx"


@pytest.fixture
def bundle(made_bundle, tmp_path):
    import shutil

    source, _, _ = made_bundle
    return Path(shutil.copytree(source, tmp_path / "bundle"))
