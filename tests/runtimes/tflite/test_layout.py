"""Storage orders: exact wherever they lead, and no transpose that is not needed."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.runtimes.base import LowerOptions
from edgeq.runtimes.tflite.layout import NHWC, compatible, inverse, reshape_layout, transposed_layout
from edgeq.runtimes.tflite.lower import convert
from tests.quantize.nets import NETS, normalised
from tests.quantize.nets import qdq_bytes as onnx_bytes
from tests.runtimes.tflite.helpers import ops

RESHAPES = [
    ((1, 6, 4, 5), (1, 6, 20)),
    ((1, 6, 4, 5), (1, 2, 3, 4, 5)),
    ((1, 2, 3, 4, 5), (1, 6, 4, 5)),
    ((1, 6, 4, 5), (1, 120)),
    ((1, 6, 4, 5), (6, 20)),
    ((1, 120), (1, 6, 4, 5)),
    ((1, 6, 1, 1), (1, 6)),
    ((1, 6), (1, 6, 1, 1)),
    ((1, 3, 4, 5, 2), (1, 60, 2)),
    ((2, 6, 4, 5), (12, 2, 10)),
    ((1, 1, 1), (1,)),
    ((4, 5), (1, 1, 2, 2, 5, 1)),
]


@pytest.mark.parametrize(("shape", "target"), RESHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_a_reshape_in_storage_order_is_the_reshape(shape, target, seed):
    random = np.random.default_rng(seed)
    perm = tuple(int(axis) for axis in random.permutation(len(shape)))
    values = random.random(shape)
    wanted, made = reshape_layout(shape, target, perm)
    assert sorted(wanted) == list(range(len(shape)))
    stored = values.transpose(wanted).reshape([target[axis] for axis in made])
    assert np.array_equal(stored, values.reshape(target).transpose(made))


@pytest.mark.parametrize(
    ("shape", "target", "made"),
    [
        ((1, 144, 40, 40), (1, 144, 1600), (0, 2, 1)),
        ((1, 255, 13, 13), (1, 3, 85, 13, 13), (0, 3, 4, 1, 2)),
        ((1, 64, 1, 1), (1, 64), (0, 1)),
    ],
)
def test_heads_are_reshaped_where_they_lie(shape, target, made):
    """Merged positions and split channels need no other order than channels last."""
    assert reshape_layout(shape, target, NHWC) == (NHWC, made)


def test_a_transpose_renames_axes_only():
    random = np.random.default_rng(0)
    values = random.random((2, 3, 4, 5))
    for _ in range(20):
        perm, order = random.permutation(4), random.permutation(4)
        stored = values.transpose(perm)
        made = transposed_layout(tuple(perm), tuple(order))
        assert np.array_equal(stored, values.transpose(order).transpose(made))
        assert tuple(np.asarray(perm)[list(inverse(tuple(perm)))]) == (0, 1, 2, 3)


def test_axes_of_length_one_lie_anywhere():
    assert compatible((1, 8, 1, 1), (0, 1, 2, 3), NHWC)
    assert not compatible((1, 8, 2, 1), (0, 1, 2, 3), NHWC)


@pytest.mark.parametrize(
    ("name", "count"), [("yolox", 0), ("yolov8", 1), ("classifier", 0), ("silu", 1), ("attention", 2)]
)
def test_transposes_are_those_that_the_model_means(name, count):
    """YOLOX's own transpose is what channels last gives; others end in ONNX's order, once."""
    data = onnx_bytes(normalised(NETS[name]()))
    assert ops(convert(data, LowerOptions()))["TRANSPOSE"] == count
