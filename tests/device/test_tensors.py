"""Where device and host part: digests of pixels, INT8 tensors and outputs."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.data.stream import iter_tensors
from edgeq.device.agent.digests import array_digest
from edgeq.device.answers import ImageDigests, parse
from edgeq.device.errors import DeviceError
from edgeq.device.local import LocalLink
from edgeq.device.models import file_model
from edgeq.device.predictions import image_files
from edgeq.device.tensors import TensorDigests, digests_on, tensor_parity
from edgeq.device.worker import Worker
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.onnxruntime.session import open_session
from edgeq.types import InputSpec, Sample

from .conftest import SIDE

SPEC = InputSpec("images", SIDE, SIDE)


def one(pixels="p", **outputs):
    return TensorDigests(pixels, outputs)


def test_a_device_of_the_same_kind_is_equal_everywhere(tmp_path, model_file, pictures):
    session = open_session(model_file, SessionOptions(threads=1))
    loaded = iter_tensors([Sample(path.name, path) for path in pictures], SPEC)
    here = tuple(TensorDigests.of(tensor, session.infer(tensor)) for _, tensor, _ in loaded)
    assert len({entry.input for entry in here}) == len(pictures)
    with Worker(LocalLink(tmp_path / "dev")) as worker:
        model = file_model(model_file, "onnxruntime")
        there = digests_on(worker, model, SPEC, image_files(pictures), threads=1)
    assert there == here
    told = tensor_parity((here, there), None, shown=False)
    assert told.equal_pixels_count == told.equal_outputs_count == len(pictures)
    assert told.int8_tensor_count is None
    assert told.arises_in is None
    assert "not compared" in told.sentence()


@pytest.mark.parametrize(
    ("outputs", "integers", "shown", "says"),
    [
        ((one(o="1"), one(o="1")), (one(a="1"), one(a="1")), True, None),
        ((one(o="1"), one(o="2")), (one(a="1"), one(a="1")), True, "float layers behind the INT8 part"),
        (
            (one(o="1"), one(o="2")),
            (one(a="1", b="1"), one(a="1", b="2")),
            True,
            "INT8 part, first",
        ),
        ((one(o="1"), one(o="2")), (one(r="1", b="1"), one(r="2", b="2")), True, "ahead of INT8 ones"),
        ((one("p", o="1"), one("q", o="2")), (one(a="1"), one(a="2")), True, "decoded otherwise"),
        ((one(o="1"), one(o="2")), None, True, "the float layers"),
        ((one(o="1"), one(o="2")), None, False, "the model's layers"),
    ],
)
def test_where_a_difference_arises(outputs, integers, shown, says):
    pairs = None if integers is None else ((integers[0],), (integers[1],))
    told = tensor_parity(((outputs[0],), (outputs[1],)), pairs, begins={"r"}, shown=shown)
    assert (told.arises_in is None) == (says is None)
    if says is not None:
        assert says in told.arises_in
        assert told.arises_in in told.sentence()
    assert told.to_json()["arises_in"] == told.arises_in


def test_images_with_equal_int8_tensors_are_counted():
    here, there = (one(a="1"), one(a="2")), (one(a="1"), one(a="3"))
    told = tensor_parity((here, there), (here, there), shown=True)
    assert (told.image_count, told.int8_tensor_count, told.equal_int8_images) == (2, 1, (0,))
    assert told.int8_part_equal is False
    assert told.to_json()["equal_int8_count"] == 1


def test_int8_layers_are_equal_where_a_float_layer_ahead_of_them_is_not():
    here = (one(r="1", a="1"), one(r="2", a="2"), one(r="3", a="3"))
    there = (one(r="1", a="1"), one(r="x", a="y"), one(r="z", a="3"))
    told = tensor_parity((here, there), (here, there), begins={"r"}, shown=True)
    assert told.int8_part_equal is True
    assert told.equal_int8_images == (0, 2)
    assert "itself equal wherever what it reads is" in told.sentence()
    assert told.arises_in == "float layers ahead of INT8 ones, first seen where rounded to r"


def test_a_digest_tells_type_and_shape_apart():
    array = np.arange(6, dtype=np.float32)
    found = {array_digest(entry) for entry in (array, array.reshape(2, 3), array.view(np.int32))}
    assert len(found) == 3
    assert array_digest(np.asfortranarray(array.reshape(2, 3))) == array_digest(array.reshape(2, 3))


@pytest.mark.parametrize("outputs", [{"a": "zz"}, {"a": 1}, ["a"], {"a" * 2000: "0" * 64}])
def test_garbage_is_no_digest(outputs):
    with pytest.raises(DeviceError):
        parse(ImageDigests, {"image": "0" * 64, "input": "0" * 64, "outputs": outputs}, "pi")
