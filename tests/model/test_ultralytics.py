"""Ultralytics checkpoints, without Ultralytics: what edgeq asks of it and makes of its failures."""

from __future__ import annotations

import os
import sys
import types

import pytest

from edgeq.errors import ModelError, UnavailableError
from edgeq.model.presets import SpecOverrides
from edgeq.model.source import load
from edgeq.model.ultralytics import export_onnx
from edgeq.types import HeadFamily


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    path = folder / "yolo11n.pt"
    path.write_bytes(b"pickle")
    return path


@pytest.fixture
def calls(monkeypatch):
    """A stand-in for the package; records how it was used, and writes what a test put into ``result``."""
    seen = {"result": b"exported", "error": None}

    class YOLO:
        def __init__(self, path):
            seen["path"] = path

        def export(self, **options):
            seen["options"] = options
            seen["environment"] = {key: os.environ.get(key) for key in ("YOLO_AUTOINSTALL", "YOLO_OFFLINE")}
            print("Ultralytics says hello")
            if seen["error"] is not None:
                raise seen["error"]
            target = seen["path"].replace(".pt", ".onnx")
            with open(target, "wb") as file:  # noqa: PTH123
                file.write(seen["result"])
            return target

    module = types.ModuleType("ultralytics")
    module.YOLO = YOLO
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    monkeypatch.delenv("YOLO_AUTOINSTALL", raising=False)
    monkeypatch.delenv("YOLO_OFFLINE", raising=False)
    return seen


def test_without_the_extra_the_message_says_how_to_get_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(UnavailableError) as caught:
        export_onnx(checkpoint, tmp_path, size=None)
    assert "yolo11n.pt" in caught.value.message
    assert 'pip install "edgeq[yolo]"' in caught.value.fix
    assert "AGPL-3.0" in caught.value.fix
    assert caught.value.exit_code == 4


def test_the_export_is_static_float_without_nms(checkpoint, tmp_path, calls, capsys):
    exported = export_onnx(checkpoint, tmp_path, size=(384, 640))
    assert exported.read_bytes() == b"exported"
    options = calls["options"]
    assert options["format"] == "onnx"
    assert options["imgsz"] == [384, 640]
    assert options["opset"] >= 13
    assert not {"half", "int8", "dynamic", "nms", "batch"} & set(options)
    # stdout is edgeq's result.
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Ultralytics says hello" in captured.err


def test_the_size_of_training_is_the_default(checkpoint, tmp_path, calls):
    export_onnx(checkpoint, tmp_path, size=None)
    assert "imgsz" not in calls["options"]


def test_nothing_is_installed_or_written_beside_the_checkpoint(checkpoint, tmp_path, calls):
    export_onnx(checkpoint, tmp_path, size=None)
    assert calls["environment"] == {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    assert [path.name for path in checkpoint.parent.iterdir()] == ["yolo11n.pt"]


@pytest.mark.parametrize("error", [RuntimeError("bad magic"), KeyError("model"), ValueError("nope")])
def test_a_checkpoint_that_does_not_export_is_a_model_error(checkpoint, tmp_path, calls, error):
    calls["error"] = error
    with pytest.raises(ModelError) as caught:
        export_onnx(checkpoint, tmp_path, size=None)
    assert "yolo11n.pt" in caught.value.message
    assert type(error).__name__ in caught.value.message


def test_an_interrupt_is_an_interrupt(checkpoint, tmp_path, calls):
    calls["error"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        export_onnx(checkpoint, tmp_path, size=None)


def test_load_takes_a_checkpoint_by_its_suffix(checkpoint, calls):
    from quantize.nets import yolov8_net

    proto = yolov8_net()
    for key, value in {"task": "detect", "names": "{0: 'a', 1: 'b'}", "stride": "2"}.items():
        proto.metadata_props.add(key=key, value=value)
    calls["result"] = proto.SerializeToString()
    model = load(checkpoint, overrides=SpecOverrides(size=(32, 32)))
    assert calls["options"]["imgsz"] == [32, 32]
    assert model.source == "yolo11n.pt"
    assert model.head.family is HeadFamily.YOLOV8
