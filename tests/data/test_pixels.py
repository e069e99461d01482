"""Without OpenCV a board sees the same pixels: numpy's resize and Pillow's decoding against OpenCV's."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from edgeq.data.pixels import split_planes
from edgeq.data.preprocess import preprocess
from edgeq.types import InputSpec, ResizeRule


def test_every_machine_resizes_alike_unless_it_is_told_not_to(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    spec = InputSpec("x", 96, 96, resize=ResizeRule.STRETCH, std=(1.0, 1.0, 1.0))
    here = preprocess(image, spec)[0]
    # As OpenCV's ARM builds do: another rule behind the same name.
    monkeypatch.setattr("edgeq.data.pixels._USUAL", False)
    monkeypatch.setattr(cv2, "INTER_LINEAR", cv2.INTER_LINEAR_EXACT)
    assert np.array_equal(preprocess(image, spec)[0], here)
    apart = np.abs(preprocess(image, spec, native=True)[0] - here)
    assert apart.max() == 1


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
            assert np.array_equal(found[f"{rule.value} {layout.value}"], mine)
