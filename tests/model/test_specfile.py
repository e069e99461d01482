"""The TOML beside the model."""

from __future__ import annotations

import pytest

from edgeq.errors import SpecError
from edgeq.model.presets import SpecOverrides
from edgeq.model.specfile import find_spec_file, load_spec_file, merge
from edgeq.types import ColorOrder, HeadFamily, Layout, ResizeRule

FULL = SpecOverrides(
    family=HeadFamily.YOLOV5,
    output="output",
    class_names=('bolt "M4"', "nut\\", "Schräge", "tab\there", "\x7f"),
    size=(320, 416),
    layout=Layout.NHWC,
    color=ColorOrder.BGR,
    mean=(1.5, 0.0, 3.0),
    std=(58.395, 57.12, 57.375),
    resize=ResizeRule.CENTER_CROP,
    pad_value=0,
    short_side_px=256,
    strides=(8, 16, 32, 64),
    normalized_boxes=False,
    preset="yolox",
)


TEXT = r"""
family = "yolov5"
output = "output"
class_names = ["bolt \"M4\"", "nut\\", "Schräge", "tab\there", "\u007f"]
size = [320, 416]
layout = "nhwc"
color = "bgr"
mean = [1.5, 0.0, 3.0]
std = [58.395, 57.12, 57.375]
resize = "center-crop"
pad_value = 0
short_side_px = 256
strides = [8, 16, 32, 64]
normalized_boxes = false
preset = "yolox"
"""


@pytest.mark.parametrize(
    ("text", "overrides"),
    [(TEXT, FULL), ("", SpecOverrides()), ("color = 'rgb'", SpecOverrides(color=ColorOrder.RGB))],
)
def test_a_file_can_say_everything(tmp_path, text, overrides):
    path = tmp_path / "model.edgeq.toml"
    path.write_text(text, encoding="utf-8")
    assert load_spec_file(path) == overrides


def test_one_number_stands_for_all(tmp_path):
    path = tmp_path / "m.edgeq.toml"
    path.write_text("size = 640\nmean = 0\nstd = 255.0\n")
    got = load_spec_file(path)
    assert (got.size, got.mean, got.std) == ((640, 640), (0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 'rgb'", "unknown key 'colour', did you mean 'color'"),
        ("zzz = 1", "unknown key 'zzz', known keys: family"),
        ("color = 'gbr'", "color = 'gbr'.*'rgb' or 'bgr'"),
        ("std = 0", "std.*greater than 0"),
        ("mean = [1, 2]", "mean"),
        ("size = -1", "size"),
        ("preset = 'tflite'", "preset = 'tflite': there is no preset.*tf-lite"),
        ("class_names = []", "class_names"),
        ("size = [", "cannot be read as TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, words):
    path = tmp_path / "m.edgeq.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=words) as error:
        load_spec_file(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_text_or_not_there(tmp_path):
    path = tmp_path / "m.edgeq.toml"
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec_file(path)


def test_finding_it_beside_the_model(tmp_path):
    model = tmp_path / "yolo.v1.onnx"
    assert find_spec_file(model) is None
    second = tmp_path / "yolo.v1.onnx.edgeq.toml"
    second.touch()
    assert find_spec_file(model) == second
    first = tmp_path / "yolo.v1.edgeq.toml"
    first.touch()
    assert find_spec_file(model) == first


def test_flags_win():
    got = merge(SpecOverrides(color=ColorOrder.RGB), FULL)
    assert got.color is ColorOrder.RGB
    assert got.size == FULL.size


def test_a_preset_among_the_flags_goes_before_the_files_single_values():
    got = merge(SpecOverrides(preset="ultralytics", pad_value=7), FULL)
    assert (got.preset, got.color, got.mean, got.pad_value) == ("ultralytics", None, None, 7)
    assert got.class_names == FULL.class_names
