from dataclasses import replace

import numpy as np
import pytest

from edgeq.errors import SpecError
from edgeq.model.box_units import measure_normalized_boxes
from edgeq.model.fitting import fit_head, fit_input
from edgeq.types import HeadFamily, HeadSpec, InputSpec, Layout, TensorInfo

SPEC = InputSpec("images", 96, 128)
HEAD = HeadSpec(HeadFamily.YOLOV8, "output0", ("bolt", "nut"))


def info(*shape, name="x"):
    return TensorInfo(name, shape, "float32")


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 96, 128), Layout.NCHW),
        ((1, 96, 128, 3), Layout.NHWC),
        ((None, 3, "h", "w"), Layout.NCHW),
        ((-1, -1, -1, 3), Layout.NHWC),
    ],
)
def test_layout_follows_the_session(shape, layout):
    fitted = fit_input(SPEC, [info(*shape)])
    assert (fitted.layout, fitted.name) == (layout, "x")
    assert replace(fitted, layout=SPEC.layout, name=SPEC.name) == SPEC


def test_a_spec_in_nhwc_finds_its_way_back():
    nhwc = replace(SPEC, layout=Layout.NHWC)
    assert fit_input(nhwc, [info(1, 3, 96, 128)]).layout is Layout.NCHW


@pytest.mark.parametrize("inputs", [[info(1, 3, 128, 96)], [info(1, 3, 96)], [], [info(1), info(1)]])
def test_another_model_is_an_error(inputs):
    with pytest.raises(SpecError):
        fit_input(SPEC, inputs)


def test_outputs_by_name_by_number_and_by_shape():
    assert fit_head(HEAD, [info(1, 6, 9, name="output0"), info(1, name="b")]) == HEAD
    assert fit_head(HEAD, [info(1, 6, 9, name="Identity")]).output == "Identity"
    assert fit_head(HEAD, [info(1, 7, 9, name="a"), info(1, 9, 6, name="b")]).output == "b"
    with pytest.raises(SpecError, match="output0"):
        fit_head(HEAD, [info(1, 6, 9, name="a"), info(1, 6, 9, name="b")])


def boxes(scale, family=HeadFamily.YOLOV8):
    rng = np.random.default_rng(0)
    places = rng.random((1, 4, 50)) * np.reshape(scale, (1, -1, 1))
    if family is HeadFamily.END_TO_END:
        return np.concatenate([places, rng.random((1, 2, 50))], axis=1).transpose(0, 2, 1)
    scores = rng.random((1, 2 if family is HeadFamily.YOLOV8 else 3, 50))
    table = np.concatenate([places, scores], axis=1)
    return table if family is HeadFamily.YOLOV8 else table.transpose(0, 2, 1)


@pytest.mark.parametrize("family", [HeadFamily.YOLOV8, HeadFamily.YOLOV5, HeadFamily.END_TO_END])
def test_units_of_boxes_are_measured(family):
    head = replace(HEAD, family=family)
    for scale, expected in ((1.0, True), (128.0, False)):
        raw = boxes(scale, family)
        seen = []

        def infer(tensor, raw=raw, seen=seen):
            seen.append(tensor)
            return {"output0": raw}

        assert measure_normalized_boxes(infer, spec=SPEC, head=head) is expected
        assert seen[0].shape == SPEC.shape
        assert 0 < seen[0].min() < seen[0].max() < 1


def test_units_that_cannot_be_told():
    def infer(_):
        return {"output0": np.zeros((1, 6, 50), np.float32)}

    assert measure_normalized_boxes(infer, spec=SPEC, head=HEAD) is None
    yolox = replace(HEAD, family=HeadFamily.YOLOX)
    assert measure_normalized_boxes(infer, spec=SPEC, head=yolox) is None
