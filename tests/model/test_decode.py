"""Decoding of each head family on outputs made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeq.errors import SpecError
from edgeq.model.decode import cell_counts, decode_classes, decode_detections
from edgeq.types import HeadFamily, HeadSpec, InputSpec, PostProcess

SPEC = InputSpec(name="images", height_px=64, width_px=96)
CELLS = sum(cell_counts(64, 96, (8, 16, 32)))
POST = PostProcess(confidence=0.25)


class AsIs:
    """The image is the input."""

    def to_original(self, boxes_xyxy, /):
        return boxes_xyxy


def head(family, *, classes=3, **options):
    return HeadSpec(family=family, output="out", class_names=tuple("abcdefgh"[:classes]), **options)


def decode(array, head_spec, *, post=POST, spec=SPEC, geometry=None):
    outputs = {"other": np.zeros(3), "out": array}
    return decode_detections(outputs, head=head_spec, spec=spec, geometry=geometry or AsIs(), post=post)


def test_cell_counts_round_up():
    assert cell_counts(416, 416, (8, 16, 32)) == (2704, 676, 169)
    assert cell_counts(100, 64, (32,)) == (4 * 2,)


def test_yolox_cells_are_row_by_row_and_level_by_level():
    raw = np.zeros((1, CELLS, 8), np.float32)
    # Level of stride 16 starts after 8 x 12 cells and is 4 x 6; cell (row 2, column 5).
    raw[0, 8 * 12 + 2 * 6 + 5] = [0.5, 0.25, np.log(2), np.log(3), 0.9, 0.1, 0.8, 0.2]
    found = decode(raw, head(HeadFamily.YOLOX))
    centre, size = np.array([5.5 * 16, 2.25 * 16]), np.array([2 * 16, 3 * 16])
    np.testing.assert_allclose(found.boxes_xyxy, [[*centre - size / 2, *centre + size / 2]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-6)
    assert found.class_ids.tolist() == [1]


def test_yolox_needs_a_box_for_each_cell():
    with pytest.raises(SpecError, match=f"{CELLS} cells"):
        decode(np.zeros((1, CELLS + 1, 8), np.float32), head(HeadFamily.YOLOX))


def test_yolov5_scores_are_objectness_times_class():
    raw = np.zeros((1, 10, 8), np.float32)
    raw[0, 3] = [50, 40, 20, 10, 0.5, 0.9, 0.2, 0.6]
    found = decode(raw, head(HeadFamily.YOLOV5))
    np.testing.assert_allclose(found.scores, [0.45, 0.3])
    assert found.class_ids.tolist() == [0, 2]
    np.testing.assert_allclose(found.boxes_xyxy, [[40, 35, 60, 45]] * 2)


def test_one_label_per_box_where_asked():
    raw = np.zeros((1, 10, 8), np.float32)
    raw[0, 3] = [50, 40, 20, 10, 0.5, 0.9, 0.2, 0.6]
    found = decode(raw, head(HeadFamily.YOLOV5), post=replace(POST, multi_label=False))
    assert found.class_ids.tolist() == [0]


@pytest.mark.parametrize("transposed", [False, True])
def test_yolov8_either_way_round(transposed):
    raw = np.zeros((1, 7, 20), np.float32)
    raw[0, :, 11] = [50, 40, 20, 10, 0.1, 0.7, 0.3]
    found = decode(raw.transpose(0, 2, 1) if transposed else raw, head(HeadFamily.YOLOV8))
    np.testing.assert_allclose(found.scores, np.array([0.7, 0.3], np.float32))
    assert found.class_ids.tolist() == [1, 2]
    np.testing.assert_allclose(found.boxes_xyxy, [[40, 35, 60, 45]] * 2)


def test_normalized_boxes_are_scaled_to_the_input():
    raw = np.zeros((1, 7, 20), np.float32)
    raw[0, :, 11] = [0.5, 0.5, 0.25, 0.5, 0.1, 0.7, 0.1]
    found = decode(raw, head(HeadFamily.YOLOV8, normalized_boxes=True))
    np.testing.assert_allclose(found.boxes_xyxy, [[36, 16, 60, 48]])


def test_end_to_end_is_sorted_and_not_suppressed():
    raw = np.zeros((1, 5, 6), np.float32)
    raw[0, :4] = [
        [1, 2, 30, 40, 0.5, 2],
        [1, 2, 30, 40, 0.9, 2],
        [1, 2, 30, 40, 0.8, 7],
        [1, 2, 30, 40, 0.2, 0],
    ]
    found = decode(raw, head(HeadFamily.END_TO_END))
    np.testing.assert_allclose(found.scores, np.array([0.9, 0.5], np.float32))  # class 7 does not exist
    np.testing.assert_allclose(found.boxes_xyxy, [[1, 2, 30, 40]] * 2)
    assert decode(raw, head(HeadFamily.END_TO_END), post=replace(POST, max_detections=1)).scores.tolist() == [
        np.float32(0.9)
    ]


def test_boxes_are_led_back_to_the_original_after_nms():
    class Half:
        seen = 0

        def to_original(self, boxes_xyxy, /):
            Half.seen = len(boxes_xyxy)
            return boxes_xyxy / 2

    raw = np.zeros((1, 10, 8), np.float32)
    raw[0, :5] = [50, 40, 20, 10, 1, 0.9, 0, 0]
    found = decode(raw, head(HeadFamily.YOLOV5), geometry=Half())
    assert Half.seen == 1
    np.testing.assert_allclose(found.boxes_xyxy, [[20, 17.5, 30, 22.5]])


@pytest.mark.parametrize("family", [f for f in HeadFamily if f is not HeadFamily.CLASSIFIER])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_no_detection(family, bad):
    shape = {HeadFamily.YOLOV8: (1, 7, CELLS), HeadFamily.END_TO_END: (1, CELLS, 6)}.get(
        family, (1, CELLS, 8)
    )
    everything = decode(np.full(shape, bad, np.float32), head(family))
    assert np.isfinite(everything.boxes_xyxy).all()
    assert np.isfinite(everything.scores).all()
    rng = np.random.default_rng(0)
    raw = rng.random(shape, dtype=np.float32)
    raw.reshape(-1)[rng.integers(0, raw.size, raw.size // 10)] = bad
    found = decode(raw, head(family))
    assert len(found.scores) > 0
    assert np.isfinite(found.boxes_xyxy).all()
    assert (np.diff(found.scores) <= 0).all()


def test_only_the_best_candidates_enter_nms():
    raw = np.zeros((1, CELLS, 8), np.float32)
    raw[0, :, :4] = np.random.default_rng(0).uniform(10, 60, (CELLS, 4))
    raw[0, :, 4] = np.linspace(0.3, 0.9, CELLS)
    raw[0, :, 5] = 1
    few = decode(raw, head(HeadFamily.YOLOV5), post=replace(POST, max_candidates=20))
    everything = decode(raw, head(HeadFamily.YOLOV5))
    assert len(few.scores) < len(everything.scores)
    np.testing.assert_array_equal(few.scores, everything.scores[: len(few.scores)])


def test_outputs_that_do_not_fit_are_named():
    with pytest.raises(SpecError, match="no output 'out', only 'other'"):
        decode_detections(
            {"other": np.zeros(1)}, head=head(HeadFamily.YOLOV5), spec=SPEC, geometry=AsIs(), post=POST
        )
    with pytest.raises(SpecError, match=r"\(1, 10, 9\).*3 classes"):
        decode(np.zeros((1, 10, 9), np.float32), head(HeadFamily.YOLOV5))
    with pytest.raises(SpecError, match="classes, not boxes"):
        decode(np.zeros((1, 3), np.float32), head(HeadFamily.CLASSIFIER))


def test_class_scores_come_flat_and_finite():
    scores = decode_classes(
        {"out": np.array([[[[1.0]], [[np.nan]], [[3.0]]]])}, head=head(HeadFamily.CLASSIFIER)
    )
    assert scores.shape == (3,)
    assert scores.dtype == np.float32
    assert scores.argmax() == 2
    assert np.isfinite(scores).all()
    with pytest.raises(SpecError, match=r"4 class scores.*3 classes"):
        decode_classes({"out": np.zeros((1, 4))}, head=head(HeadFamily.CLASSIFIER))
