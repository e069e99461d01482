"""Devices for tests: this machine, a real sshd on 127.0.0.1, and links that break on purpose."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.device.local import LocalLink
from edgeq.errors import UnavailableError
from tools.sshd import make_key, running_sshd


@pytest.fixture(scope="session")
def board(tmp_path_factory):
    """sshd on 127.0.0.1 with keys of its own; it knows nothing of this user's."""
    folder = tmp_path_factory.mktemp("sshd")
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(running_sshd(folder))
        except UnavailableError as error:
            pytest.skip(error.message)
        make_key(folder / "stranger")
        yield running


@pytest.fixture
def device_folder(tmp_path) -> Path:
    """A device's folder whose environment is the one that runs the tests."""
    folder = tmp_path / "device"
    (folder / "venv" / "bin").mkdir(parents=True)
    python = folder / "venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / "venv" / "edgeq-setup.json").write_text(
        '{"schema": 1, "runtimes": ["onnxruntime"], "packages": {}}'
    )
    return folder


class CutProcess:
    """A process whose connection is cut after so many bytes to it or from it."""

    def __init__(self, inner, limit_in: int | None, limit_out: int | None) -> None:
        self._inner = inner
        self._left_in = limit_in
        self.read = self.written = 0
        read, write = os.pipe()
        self.stdout = os.fdopen(read, "rb")
        threading.Thread(target=self._pump, args=(write, limit_out), daemon=True).start()

    @property
    def stdin(self):
        return self

    def write(self, data: bytes) -> int:
        if self._left_in is not None and self.written + len(data) > self._left_in:
            part = data[: self._left_in - self.written]
            with contextlib.suppress(OSError):
                self._inner.stdin.write(part)
                self._inner.stdin.flush()
            time.sleep(0.05)
            self.cut()
            raise BrokenPipeError("cut by the test")
        self.written += len(data)
        return self._inner.stdin.write(data)

    def flush(self) -> None:
        self._inner.stdin.flush()

    def close(self) -> None:
        self._inner.stdin.close()

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._inner._native.pid, signal.SIGKILL)

    def _pump(self, write: int, limit: int | None) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(self._inner.stdout.fileno(), 1024):
                if limit is not None and self.read + len(piece) > limit:
                    piece = piece[: limit - self.read]
                    self.cut()
                self.read += len(piece)
                os.write(write, piece)
                if limit is not None and self.read >= limit:
                    break
        os.close(write)

    def stderr_tail(self) -> str:
        return self._inner.stderr_tail()

    def wait(self, timeout_s: float):
        return self._inner.wait(timeout_s)

    def end(self) -> None:
        self._inner.end()
        self.stdout.close()


class CutLink(LocalLink):
    """This machine; agents are cut as the list says: (bytes to it, bytes from it), None for never."""

    def __init__(self, folder: Path, cuts=()) -> None:
        super().__init__(folder)
        self.cuts = list(cuts)
        self.agents: list[CutProcess] = []

    def start(self, script: str):
        process = super().start(script)
        if not script.startswith("exec "):
            return process
        limits = self.cuts.pop(0) if self.cuts else (None, None)
        self.agents.append(CutProcess(process, *limits))
        return self.agents[-1]


SIDE = 64
CLASSES = ("bolt", "nut")


def make_model() -> bytes:
    """A tiny detector with a YOLOv8 head: a convolution, an average, a prediction layer at stride 8."""
    rng = np.random.default_rng(0)
    channels, cells = 4 + len(CLASSES), (SIDE // 8) ** 2
    tensors = [
        numpy_helper.from_array(rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32), "w1"),
        numpy_helper.from_array(rng.normal(0, 0.4, (channels, 8, 1, 1)).astype(np.float32), "w2"),
        numpy_helper.from_array(np.array([1, channels, cells], np.int64), "shape"),
        numpy_helper.from_array(
            np.array([float(SIDE)] * 4 + [1.0] * len(CLASSES), np.float32).reshape(1, channels, 1), "scale"
        ),
    ]
    nodes = [
        helper.make_node(
            "Conv", ["images", "w1"], ["a"], name="stem", strides=[2, 2], pads=[1] * 4, kernel_shape=[3, 3]
        ),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("AveragePool", ["b"], ["c"], name="pool", strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("Conv", ["c", "w2"], ["d"], name="predict", kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["d", "shape"], ["e"], name="flat"),
        helper.make_node("Sigmoid", ["e"], ["f"], name="shares"),
        helper.make_node("Mul", ["f", "scale"], ["output0"], name="out"),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, channels, cells])],
        tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


@pytest.fixture
def model_file(tmp_path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(make_model())
    onnx.checker.check_model(str(path))
    return path


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    """Twelve PNGs of 96 x 72, all different."""
    import cv2

    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = []
    for number in range(12):
        picture = np.random.default_rng(number).integers(0, 256, (72, 96, 3), dtype=np.uint8)
        paths.append(folder / f"{number:02}.png")
        cv2.imwrite(str(paths[-1]), picture)
    return paths
