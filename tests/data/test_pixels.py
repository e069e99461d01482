"""Without OpenCV a board sees the same pixels: numpy's resize and Pillow's decoding against OpenCV's."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from edgeq.data.pixels import resize_by_numpy, resize_rgb, split_planes
from edgeq.data.preprocess import preprocess
from edgeq.types import InputSpec, ResizeRule

SIZES = [
    ((480, 640), (312, 416)), ((427, 640), (278, 416)), ((100, 120), (416, 416)), ((480, 640), (240, 320)),
    ((33, 17), (50, 64)), ((500, 333), (640, 426)), ((64, 48), (48, 64)), ((2, 2), (5, 5)), ((1, 1), (7, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_bilinear_in_numpy_is_opencvs_to_the_bit(size, wanted):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = resize_rgb(image, wanted[1], wanted[0], area=False)
    assert np.array_equal(resize_by_numpy(image, wanted[1], wanted[0], area=False), expected)


@pytest.mark.parametrize(
    ("size", "wanted"), [((480, 640), (256, 341)), ((375, 500), (312, 416)), ((256, 256), (128, 128))]
)
def test_area_in_numpy_is_opencvs_but_for_rounding(size, wanted):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = resize_rgb(image, wanted[1], wanted[0], area=True).astype(int)
    apart = np.abs(resize_by_numpy(image, wanted[1], wanted[0], area=True) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.01


def test_planes_are_contiguous():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    for channel, plane in enumerate(split_planes(image)):
        assert np.array_equal(plane, image[..., channel])
        assert plane.flags.c_contiguous


_CODE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from edgeq.data.images import decode_image
from edgeq.data.pixels import HAS_OPENCV
from edgeq.data.preprocess import preprocess
from edgeq.errors import DataError
from edgeq.types import ColorOrder, InputSpec, Layout, ResizeRule
assert not HAS_OPENCV
image = decode_image(open(sys.argv[1], "rb").read(), name="x")
out = {"image": image}
for rule in ResizeRule:
    for layout in Layout:
        spec = InputSpec("x", 64, 96, layout=layout, color=ColorOrder.BGR, resize=rule)
        out[f"{rule.value} {layout.value}"] = preprocess(image, spec)[0]
np.savez(sys.argv[2], **out)
try:
    decode_image(b"\\x89PNG\\r\\n\\x1a\\n" + b"\\0" * 64, name="broken")
    raise SystemExit("not refused")
except DataError:
    pass
"""


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp"])
def test_a_board_with_pillow_sees_what_one_with_opencv_sees(tmp_path, ending):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    from edgeq.data.images import read_image
    from edgeq.types import ColorOrder, Layout

    rng = np.random.default_rng(0)
    picture = cv2.resize(
        rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (240, 180), interpolation=cv2.INTER_CUBIC
    )
    path = tmp_path / f"a{ending}"
    cv2.imwrite(str(path), picture)
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(path), str(tmp_path / "out.npz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    assert np.array_equal(found["image"], read_image(path))
    for rule in ResizeRule:
        for layout in Layout:
            spec = InputSpec("x", 64, 96, layout=layout, color=ColorOrder.BGR, resize=rule)
            mine = preprocess(read_image(path), spec)[0]
            apart = np.abs(found[f"{rule.value} {layout.value}"] - mine).max()
            assert apart <= (1.001 / 255 if rule is ResizeRule.CENTER_CROP else 0)
