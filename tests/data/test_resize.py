"""The numpy rules are those of OpenCV's x86 build, to the bit, and the same on every machine."""

import hashlib
import platform

import cv2
import numpy as np
import pytest

from edgeq.data.resize import resize_by_numpy

SIZES = [
    ((480, 640), (312, 416)), ((427, 640), (278, 416)), ((100, 120), (416, 416)), ((480, 640), (240, 320)),
    ((33, 17), (50, 64)), ((500, 333), (640, 426)), ((64, 48), (48, 64)), ((2, 2), (5, 5)), ((1, 1), (7, 3)),
]  # fmt: skip
GOLDEN = {
    (False, 312, 416): "7184bb81bae8f157",
    (True, 256, 341): "a957baadd0d66744",
    (True, 160, 160): "0bd7a42a8ff46cc3",
}
x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="OpenCV resizes otherwise here"
)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@x86
@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_bilinear_is_opencvs_to_the_bit(size, wanted):
    image = noise(*size)
    expected = cv2.resize(image, wanted[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize_by_numpy(image, wanted[1], wanted[0], area=False), expected)


@x86
@pytest.mark.parametrize("seed", range(60))
def test_areas_are_opencvs_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 300, 2))
    if seed % 3:
        down, across = (int(rng.integers(1, side + 1)) for side in (height, width))
    else:
        down, across, height, width = (
            height // 3 + 1,
            width // 4 + 1,
            (height // 3 + 1) * 3,
            (width // 4 + 1) * 4,
        )
    image = noise(height, width, seed)
    expected = cv2.resize(image, (across, down), interpolation=cv2.INTER_AREA)
    assert np.array_equal(resize_by_numpy(image, across, down, area=True), expected)


@pytest.mark.parametrize(("area", "height", "width"), list(GOLDEN))
def test_pixels_are_those_of_every_other_machine(area, height, width):
    digest = hashlib.sha256(resize_by_numpy(noise(480, 640), width, height, area=area).tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[area, height, width]


def test_rows_that_are_not_contiguous_are_read_as_they_are_meant():
    image = noise(40, 60)
    turned = image[:, ::-1]
    assert np.array_equal(
        resize_by_numpy(turned, 30, 33, area=False), resize_by_numpy(turned.copy(), 30, 33, area=False)
    )
