"""Statistics: exact extremes, faithful files, pieces that merge as if observed at once."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.errors import CalibrationError, InputError
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.observe import KNOWN_RANGES, MOVES_DATA, Observer
from edgeq.quantize.statistics import Statistics, merge_statistics

from .nets import NETS, Net, concat_net, images, normalised, run, silu_net


@pytest.fixture(scope="module")
def observed():
    model = normalised(silu_net())
    observer, pictures = Observer(model), images(6)
    return model, observer, pictures, observer.observe(pictures)


def assert_same(first, second):
    assert first.image_count == second.image_count
    assert list(first.tensors) == list(second.tensors)
    for name, left in first.tensors.items():
        right = second.tensors[name]
        np.testing.assert_array_equal(left.image_low, right.image_low)
        np.testing.assert_array_equal(left.image_high, right.image_high)
        assert (left.histogram.exponent, left.histogram.start) == (
            right.histogram.exponent,
            right.histogram.start,
        )
        np.testing.assert_array_equal(left.histogram.counts, right.histogram.counts)
        assert (left.channels is None) == (right.channels is None)


def test_extremes_and_channels_are_those_of_the_tensors(observed):
    model, _, pictures, statistics = observed
    name = next(node.outputs[0].name for node in model.graph if node.name == "stem")
    widened = onnx_with_output(model, name)
    values = np.concatenate([run(widened, picture, [name])[0] for picture in pictures])
    tensor = statistics.tensors[name]
    np.testing.assert_allclose(tensor.image_low, values.min(axis=(1, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tensor.image_high, values.max(axis=(1, 2, 3)), rtol=1e-4, atol=1e-6)
    assert tensor.histogram.counts.sum() == values.size
    channels = tensor.channels
    np.testing.assert_allclose(channels.low, values.min(axis=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(channels.mean_high, values.max(axis=(2, 3)).mean(axis=0), rtol=1e-4, atol=1e-6)


def onnx_with_output(model, name):
    widened = model.clone()
    values = {value.name: value for node in widened.graph for value in node.outputs}
    widened.graph.outputs.append(values[name])
    return model_bytes(widened)


def test_the_extremes_of_a_large_tensor_are_exact_though_the_histogram_is_a_subset():
    net = Net(size=256)
    model = normalised(net.build(net.conv(net.relu("images"), 2, name="head")))
    picture = np.zeros((1, 3, 256, 256), np.float32)
    picture[0, 1, 13, 77], picture[0, 2, 200, 3] = 9.0, -4.0
    tensor = Observer(model).observe([picture]).tensors["images"]
    assert (tensor.low, tensor.high) == (-4.0, 9.0)
    assert 4096 / 3 <= tensor.histogram.counts.sum() <= 2 * 4096


@pytest.mark.parametrize("name", NETS)
def test_what_is_recorded_is_what_is_computed(name):
    model = normalised(NETS[name]())
    statistics = Observer(model).observe(images(1, size=int(model.graph.inputs[0].shape[2])))
    expected = {"images"} | {
        node.outputs[0].name for node in model.graph if node.op_type not in MOVES_DATA | set(KNOWN_RANGES)
    }
    assert set(statistics.tensors) == expected


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_pieces_merge_as_if_observed_at_once(observed, cut):
    _, observer, pictures, whole = observed
    merged = merge_statistics([observer.observe(pictures[:cut]), observer.observe(pictures[cut:])])
    assert_same(merged, whole)
    for name, tensor in whole.tensors.items():
        if tensor.channels is None:
            continue
        for field, values in vars(tensor.channels).items():
            np.testing.assert_allclose(
                vars(merged.tensors[name].channels)[field], values, rtol=1e-5, atol=1e-6
            )


def test_memory_does_not_grow_with_the_images(observed):
    _, observer, pictures, _ = observed
    few, many = observer.observe(pictures[:2]), observer.observe(pictures * 8)
    added = len(many.to_bytes(compress=False)) - len(few.to_bytes(compress=False))
    # Two float32 extremes per tensor and image, and no more bins than the limit.
    assert added <= len(many.tensors) * (46 * 8 + 8 * 4096)
    assert all(len(tensor.histogram.counts) <= 4096 for tensor in many.tensors.values())


@pytest.mark.parametrize("compress", [True, False])
def test_a_file_gives_back_what_was_written(observed, compress):
    statistics = observed[3]
    data = statistics.to_bytes(compress=compress)
    back = Statistics.from_bytes(data)
    assert_same(back, statistics)
    for name, tensor in statistics.tensors.items():
        if tensor.channels is not None:
            for field, values in vars(tensor.channels).items():
                np.testing.assert_array_equal(vars(back.tensors[name].channels)[field], values)
    assert back.to_bytes(compress=compress) == data


@pytest.mark.parametrize("compress", [True, False])
def test_truncated_files_are_refused(observed, compress):
    data = observed[3].to_bytes(compress=compress)
    for size in [0, 1, 3, 30, *np.linspace(40, len(data) - 1, 12).astype(int)]:
        with pytest.raises(InputError, match="statistics"):
            Statistics.from_bytes(data[:size])


@pytest.mark.parametrize("compress", [True, False])
def test_damaged_files_are_refused_or_harmless(observed, compress):
    data = observed[3].to_bytes(compress=compress)
    refused = 0
    for position in np.linspace(0, len(data) - 1, 60).astype(int):
        damaged = bytearray(data)
        damaged[position] ^= 0x5A
        try:
            back = Statistics.from_bytes(bytes(damaged))
        except InputError:
            refused += 1
        else:
            assert_same(back, observed[3])
    assert refused > 30


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not statistics",
        b"\x93NUMPY",
        b"PK\x03\x04",
    ],
)
def test_other_files_are_refused(data):
    with pytest.raises(InputError, match="statistics"):
        Statistics.from_bytes(data)


def test_another_schema_is_refused(observed, monkeypatch):
    monkeypatch.setattr("edgeq.quantize.statistics._SCHEMA", 99)
    data = observed[3].to_bytes()
    monkeypatch.undo()
    with pytest.raises(InputError, match="schema 99"):
        Statistics.from_bytes(data)


def test_no_image_is_an_error(observed):
    with pytest.raises(CalibrationError, match="no image"):
        observed[1].observe([])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_the_tensor(value):
    net = Net()
    x = net.op("Div", "images", net.constant("divisor", np.float32(2)), name="half")
    model = normalised(net.build(net.conv(net.relu(net.conv(x, 4, name="stem")), 2, name="head")))
    picture = images(1)[0].copy()
    picture[0, 1, 4, 4] = value
    with pytest.raises(CalibrationError, match="'images'"):
        Observer(model).observe([picture])


def test_a_constant_image_is_observed():
    """A black, white or grey frame is a normal thing in a calibration set."""
    model = normalised(concat_net())
    for value in (0.0, 1.0, 114 / 255):
        statistics = Observer(model).observe([np.full((1, 3, 32, 32), value, np.float32)])
        assert statistics.tensors["images"].histogram.counts.sum() == 3 * 32 * 32


def test_a_progress_callback_counts_the_images(observed):
    seen = []
    observed[1].observe(observed[2], progress=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_observing_does_not_change_the_model():
    model = normalised(silu_net())
    before = model_bytes(model)
    Observer(model).observe(images(1))
    assert model_bytes(model) == before
