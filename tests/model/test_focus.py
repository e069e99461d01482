"""The Focus stem as one convolution: exact, and only where it is one."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from quantize.nets import Net, images, normalised_bytes, op_counts, run

YOLOX_ORDER = ((0, 0), (1, 0), (0, 1), (1, 1))
"""(row, column) offsets of top left, bottom left, top right, bottom right."""
END = np.iinfo(np.int64).max


def slices(net, x, starts, axes, *, end=END, step=2, at_once=False):
    """Every second element from the start, along each axis."""

    def constant(kind, values):
        return net.constant(f"{kind}{len(net.nodes)}", np.asarray(values, np.int64))

    groups = [(starts, axes)] if at_once else [([s], [a]) for s, a in zip(starts, axes, strict=True)]
    for start, axis in groups:
        x = net.op(
            "Slice", x, constant("starts", start), constant("ends", [end] * len(start)),
            constant("axes", axis), constant("steps", [step] * len(start)),
        )  # fmt: skip
    return x


def focus(net, order=YOLOX_ORDER, *, columns_first=False, at_once=False, end=END, step=2):
    taken = []
    for dy, dx in order:
        starts, axes = ((dx, dy), (3, 2)) if columns_first else ((dy, dx), (2, 3))
        taken.append(slices(net, "images", starts, axes, end=end, step=step, at_once=at_once))
    return net.op("Concat", *taken, axis=1, channels=4 * net.channels["images"])


def finished(net, x, **options):
    return net.build(net.relu(net.conv(x, 8, options.pop("k", 3), name="stem", **options)))


def check(proto, *, folded, size=32, channels=3):
    data = normalised_bytes(proto)
    counts = op_counts(onnx.load_from_string(data))
    assert (counts["Slice"] == counts["Concat"] == 0) is folded
    for seed in range(2):
        picture = images(1, size=size, channels=channels, seed=seed)[0] * 255
        expected, got = run(proto, picture)[0], run(data, picture)[0]
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return onnx.load_from_string(data)


@pytest.mark.parametrize("order", list(itertools.permutations(YOLOX_ORDER)))
def test_every_order_of_the_four_is_exact(order):
    net = Net(opset=11)
    check(finished(net, focus(net, order)), folded=True)


@pytest.mark.parametrize(
    "opset",
    [
        11,
        13,
        17,
    ],
)
def test_whatever_the_opset(opset):
    net = Net(opset=opset)
    check(finished(net, focus(net)), folded=True)


@pytest.mark.parametrize("columns_first", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_rows_and_columns_may_be_cut_either_way(columns_first, at_once):
    net = Net(opset=11)
    check(finished(net, focus(net, columns_first=columns_first, at_once=at_once)), folded=True)


@pytest.mark.parametrize(
    ("k", "pads"),
    [(1, [0] * 4), (3, [1] * 4), (3, [0] * 4), (5, [2] * 4), (3, [1, 0, 0, 1]), (3, [0, 2, 1, 0])],
)
def test_kernels_and_padding_of_any_size_are_exact(k, pads):
    net = Net(opset=11)
    model = check(finished(net, focus(net), k=k, pads=pads), folded=True)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in conv.attribute}
    assert list(attributes["kernel_shape"]) == [2 * k, 2 * k]
    assert list(attributes["strides"]) == [2, 2]


def test_the_end_may_be_the_size_itself():
    net = Net(opset=11)
    check(finished(net, focus(net, end=32)), folded=True)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels(channels):
    net = Net(channels=channels, opset=11)
    check(finished(net, focus(net)), folded=True, channels=channels)


def test_without_a_bias():
    net = Net(opset=11)
    check(finished(net, focus(net), bias=False), folded=True)


def test_an_odd_size_is_left_alone():
    net = Net(size=33, opset=11)
    taken = [slices(net, "images", (dy, dx), (2, 3), end=32) for dy, dx in YOLOX_ORDER]
    x = net.op("Concat", *taken, axis=1, channels=12)
    check(finished(net, x), folded=False, size=33)


@pytest.mark.parametrize("options", [{"stride": 2}, {"group": 4}, {"group": 2}])
def test_other_strides_and_groups_are_left_alone(options):
    net = Net(opset=11)
    check(finished(net, focus(net), **options), folded=False)


def test_dilation_is_left_alone():
    net = Net(opset=11)
    x = focus(net)
    weight = net.constant("w", net.random.normal(size=(8, 12, 3, 3)).astype(np.float32))
    y = net.op(
        "Conv", x, weight, name="stem", channels=8, dilations=[2, 2], pads=[2] * 4, kernel_shape=[3, 3]
    )
    check(net.build(net.relu(y)), folded=False)


@pytest.mark.parametrize(
    "order",
    [((0, 0), (1, 0), (0, 1), (0, 1)), ((0, 0), (0, 0), (0, 0), (0, 0)), ((0, 0), (1, 0), (0, 1))],
)
def test_what_takes_a_pixel_twice_or_never_is_left_alone(order):
    net = Net(opset=11)
    x = focus(net, order)
    net.channels[x] = 3 * len(order)
    check(finished(net, x), folded=False)


def test_cut_ends_are_left_alone():
    """The last rows and columns stay out: not every pixel is read."""
    net = Net(opset=11)
    taken = [slices(net, "images", (dy, dx), (2, 3), end=30) for dy, dx in YOLOX_ORDER]
    x = net.op("Concat", *taken, axis=1, channels=12)
    check(finished(net, x), folded=False)


def test_slices_of_two_tensors_are_left_alone():
    net = Net(opset=11)
    other = net.relu("images")
    taken = [
        slices(net, source, (dy, dx), (2, 3))
        for source, (dy, dx) in zip(("images", other, "images", other), YOLOX_ORDER, strict=True)
    ]
    x = net.op("Concat", *taken, axis=1, channels=12)
    check(finished(net, x), folded=False)


def test_a_concat_that_something_else_reads_stays_for_it():
    net = Net(opset=11)
    x = focus(net)
    y = net.relu(net.conv(x, 8, 3, name="stem"))
    z = net.op("GlobalAveragePool", x)
    proto = net.build(y, z)
    data = normalised_bytes(proto)
    picture = images(1)[0]
    for expected, got in zip(run(proto, picture), run(data, picture), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_two_convolutions_on_one_focus_with_one_weight():
    net = Net(opset=11)
    x = focus(net)
    y = net.conv(x, 8, 3, name="stem")
    weight = next(node for node in net.nodes if node.name == "stem").input[1]
    z = net.op("Conv", x, weight, name="twin", channels=8, pads=[1] * 4, kernel_shape=[3, 3])
    check(net.build(net.op("Add", net.relu(y), net.op("Neg", z))), folded=True)
