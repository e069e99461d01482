from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeq.data.preprocess import preprocess
from edgeq.errors import DataError, SpecError
from edgeq.types import ColorOrder, InputSpec, Layout, ResizeRule

from .conftest import make_picture

SIZES = [
    (640, 480),
    (480, 640),
    (427, 640),
    (333, 500),
    (640, 427),
    (31, 17),
    (1000, 3),
    (3, 1000),
    (416, 416),
]


def ultralytics_letterbox(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """LetterBox.__call__ of Ultralytics 8 with auto=False, scaleup=True, center=True, on uint8."""
    shape = image.shape[:2]
    r = min(size[0] / shape[0], size[1] / shape[1])
    new_unpad = (max(round(shape[1] * r), 1), max(round(shape[0] * r), 1))
    dw, dh = (size[1] - new_unpad[0]) / 2, (size[0] - new_unpad[1]) / 2
    if shape[::-1] != new_unpad:
        image = cv2.resize(image, new_unpad, interpolation=cv2.INTER_LINEAR)
    top, bottom = round(dh - 0.1), round(dh + 0.1)
    left, right = round(dw - 0.1), round(dw + 0.1)
    grey = (114, 114, 114)
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey)


def yolox_preproc(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """preproc of YOLOX (yolox/data/data_augment.py), (3, H, W) float32."""
    padded = np.ones((*size, 3), dtype=np.uint8) * 114
    r = min(size[0] / image.shape[0], size[1] / image.shape[1])
    new = (max(int(image.shape[1] * r), 1), max(int(image.shape[0] * r), 1))
    resized = cv2.resize(image, new, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    padded[: new[1], : new[0]] = resized
    return np.ascontiguousarray(padded.transpose(2, 0, 1), dtype=np.float32)


@pytest.mark.parametrize("size", [(416, 416), (320, 640)])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_center_letterbox_is_ultralytics(width: int, height: int, size: tuple[int, int]) -> None:
    image = make_picture(3, width=width, height=height)
    tensor, _ = preprocess(image, InputSpec("x", *size))
    expected = ultralytics_letterbox(image, size).transpose(2, 0, 1)[None].astype(np.float32) / 255
    assert tensor.shape == (1, 3, *size)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_topleft_letterbox_is_yolox_to_the_bit(width: int, height: int) -> None:
    image = make_picture(3, width=width, height=height)
    spec = InputSpec(
        "x", 416, 416, color=ColorOrder.BGR, std=(1.0, 1.0, 1.0), resize=ResizeRule.LETTERBOX_TOPLEFT
    )
    tensor, _ = preprocess(image, spec)
    bgr = np.ascontiguousarray(image[..., ::-1])
    np.testing.assert_array_equal(tensor[0], yolox_preproc(bgr, (416, 416)))


@pytest.mark.parametrize("resize", list(ResizeRule))
@pytest.mark.parametrize("color", list(ColorOrder))
def test_layouts_and_normalisation_agree(resize: ResizeRule, color: ColorOrder) -> None:
    image = make_picture(4, width=90, height=60)
    mean, std = (123.0, 116.0, 103.0), (58.0, 57.0, 56.0)
    unit, _ = preprocess(image, InputSpec("x", 40, 48, color=color, resize=resize, std=(1.0, 1.0, 1.0)))
    for layout in Layout:
        spec = InputSpec("x", 40, 48, color=color, resize=resize, mean=mean, std=std, layout=layout)
        tensor, _ = preprocess(image, spec)
        assert tensor.shape == spec.shape
        nchw = tensor if layout is Layout.NCHW else tensor.transpose(0, 3, 1, 2)
        expected = (unit - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
        np.testing.assert_allclose(nchw, expected, atol=1e-5, rtol=0)


def test_bgr_is_rgb_reversed() -> None:
    image = make_picture(4)
    rgb, _ = preprocess(image, InputSpec("x", 64, 64))
    bgr, _ = preprocess(image, InputSpec("x", 64, 64, color=ColorOrder.BGR))
    np.testing.assert_array_equal(rgb[:, ::-1], bgr)


def test_image_is_not_changed() -> None:
    image = make_picture(4, width=64, height=64)
    before = image.copy()
    preprocess(image, InputSpec("x", 64, 64, color=ColorOrder.BGR, layout=Layout.NHWC))
    np.testing.assert_array_equal(image, before)


def test_center_crop_takes_the_centre() -> None:
    image = np.zeros((256, 512, 3), np.uint8)
    image[16:240, 144:368] = 255
    spec = InputSpec("x", 224, 224, resize=ResizeRule.CENTER_CROP, short_side_px=256)
    tensor, geometry = preprocess(image, spec)
    assert float(tensor.min()) == pytest.approx(1.0)
    assert (geometry.pad_left_px, geometry.pad_top_px) == (-144, -16)


def test_center_crop_without_short_side_covers_the_model() -> None:
    spec = InputSpec("x", 48, 96, resize=ResizeRule.CENTER_CROP, pad_value=0)
    for width, height in SIZES:
        tensor, _ = preprocess(np.full((height, width, 3), 255, np.uint8), spec)
        assert float(tensor.min()) == pytest.approx(1.0)


def test_center_crop_larger_than_the_short_side_is_refused() -> None:
    spec = InputSpec("x", 224, 224, resize=ResizeRule.CENTER_CROP, short_side_px=200)
    with pytest.raises(SpecError, match="200"):
        preprocess(make_picture(1), spec)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
    ids=["gray", "float", "empty"],
)
def test_wrong_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8"):
        preprocess(image, InputSpec("x", 8, 8))


@pytest.mark.parametrize("resize", list(ResizeRule))
@pytest.mark.parametrize(("width", "height"), [(640, 480), (427, 640), (333, 500)])
def test_geometry_finds_the_object_again(resize: ResizeRule, width: int, height: int) -> None:
    """A white box in the middle of the image is found in the tensor and mapped back onto itself."""
    image = np.zeros((height, width, 3), np.uint8)
    box = np.array([width * 0.4, height * 0.4, width * 0.6, height * 0.6]).round().astype(int)
    image[box[1] : box[3], box[0] : box[2]] = 255
    tensor, geometry = preprocess(image, InputSpec("x", 416, 416, resize=resize, pad_value=0))
    rows, columns = np.nonzero(tensor[0, 0] > 0.5)
    found = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    np.testing.assert_allclose(geometry.to_original(found)[0], box, atol=2.0)


def test_boxes_are_clipped_to_the_image() -> None:
    _, geometry = preprocess(make_picture(1, width=640, height=480), InputSpec("x", 416, 416))
    boxes = geometry.to_original(np.array([[-50, 0, 500, 416]], np.float32))
    assert boxes.tolist() == [[0, 0, 640, 480]]
    assert geometry.to_original(np.empty((0, 4), np.float32)).shape == (0, 4)


def test_letterbox_is_fast() -> None:
    image, spec = make_picture(1, width=640, height=480), InputSpec("x", 416, 416)
    best_ms = min(_time_ms(image, spec) for _ in range(50))
    assert best_ms < 2.5


def _time_ms(image: np.ndarray, spec: InputSpec) -> float:
    start = time.perf_counter_ns()
    preprocess(image, spec, native=True)
    return (time.perf_counter_ns() - start) / 1e6


def test_efficientnet_lite0_top1(shared_data: Path) -> None:
    """The resize of the centre crop reproduces the reference top-1 on the 250 images."""
    ort = pytest.importorskip("onnxruntime")
    from edgeq.data.dataset import open_dataset
    from edgeq.data.stream import iter_tensors

    model = ort.InferenceSession(shared_data / "models/efficientnet_lite0_imagenet_fp32_224.onnx")
    spec = InputSpec(
        model.get_inputs()[0].name,
        224,
        224,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        resize=ResizeRule.CENTER_CROP,
        short_side_px=256,
    )
    samples = open_dataset(shared_data / "imagenet-mini").samples
    hits = [
        int(model.run(None, {spec.name: tensor})[0].argmax()) == sample.truth
        for sample, tensor, _ in iter_tensors(samples, spec)
    ]
    assert len(hits) == 250
    assert np.mean(hits) == pytest.approx(0.888, abs=0.0041)


def test_device_side_needs_numpy_and_opencv_only() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['pydantic', 'yaml', 'onnx', 'onnxruntime', 'rich']));"
        "import edgeq.data.images, edgeq.data.preprocess, edgeq.data.stream"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_package_import_is_light() -> None:
    code = "import sys, edgeq.data; assert not {'cv2', 'pydantic', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
