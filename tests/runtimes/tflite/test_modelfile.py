"""Reading a .tflite file: names, metadata, and damage of every kind as an error instead of a crash."""

import json
import struct

import numpy as np
import pytest

from edgeq.errors import ModelError
from edgeq.runtimes.tflite.flatbuffer import Damaged, root_table
from edgeq.runtimes.tflite.metadata import parse_metadata
from edgeq.runtimes.tflite.modelfile import read_model, tail_path

from .files import make_file, with_zip


@pytest.fixture
def read(tmp_path):
    def run(content):
        path = tmp_path / "m.tflite"
        path.write_bytes(content)
        return read_model(path)

    return run


def test_tensors_operators_and_names(read):
    model = read(make_file(dtype="int8", scale=0.5, zero=-3, names=("images", "output0")))
    assert [tensor.name for tensor in model.tensors] == ["in0", "shape", "out"]
    first = model.tensors[0]
    assert (first.shape, first.dtype, first.scales, first.zero_points) == (
        (1, 4, 4, 3),
        "int8",
        (0.5,),
        (-3,),
    )
    assert not first.constant
    assert model.tensors[1].constant
    assert (model.name(model.inputs[0]), model.name(model.outputs[0])) == ("images", "output0")
    assert model.operators[0].inputs == (0, 1)
    plain = read(make_file())
    assert plain.name(plain.outputs[0]) == "out"


def test_edgeqs_own_metadata(read):
    nodes = {"out": ["conv1", "Conv"]}
    model = read(make_file(metadata={"source": {"names": {"0": "bolt"}, "task": "detect"}, "nodes": nodes}))
    assert model.metadata == {"names": "{0: 'bolt'}", "task": "detect"}
    assert model.nodes == {"out": ("conv1", "Conv")}


@pytest.mark.parametrize("tail", ["../out.tflite", "/etc/out.tflite", "a\\b.tflite", "out.txt", "m.tflite"])
def test_a_tail_lies_beside_its_model(tail, read, tmp_path):
    model = read(make_file(metadata={"source": {}, "nodes": {}, "tail": tail}))
    (tmp_path.parent / "out.tflite").write_bytes(b"")
    with pytest.raises(ModelError, match=r"beside it|is missing"):
        tail_path(tmp_path / "m.tflite", model)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.json", json.dumps({"names": {"0": "bolt", "1": "nut"}, "imgsz": [64, 64]})),
        ("temp_meta.txt", "{'names': {0: 'bolt', 1: 'nut'}, 'imgsz': [64, 64]}"),
    ],
)
def test_metadata_that_exporters_append(name, text, read):
    model = read(with_zip(make_file(), name, text))
    assert model.metadata == {"names": "{0: 'bolt', 1: 'nut'}", "imgsz": "[64, 64]"}


def test_appended_labels_are_names(read):
    assert read(with_zip(make_file(), "labelmap.txt", "bolt\nnut\n\n")).metadata == {
        "names": "{0: 'bolt', 1: 'nut'}"
    }


def test_metadata_that_is_none(read):
    whole = with_zip(make_file(), "metadata.json", json.dumps({"a": 1}))
    assert read(whole[:-8] + b"\xff" * 8).metadata == {}
    assert read(with_zip(make_file(), "metadata.json", "x" * 2_000_000)).metadata == {}
    assert parse_metadata(b"[1, 2]") == parse_metadata(b"(" * 100_000) == parse_metadata(b"\xff\xfe") == {}


@pytest.mark.parametrize("keep", [0, 7, 31, 40, 100, 0.3, 0.6, 0.9])
def test_truncated(keep, read):
    content = make_file(dtype="int8", scale=0.1, names=("a", "b"))
    with pytest.raises(ModelError, match=r"TFLite|is damaged or truncated"):
        read(content[: keep if isinstance(keep, int) else int(len(content) * keep)])


def test_any_damage_is_an_error_or_harmless(read):
    """Whatever four bytes are overwritten with, reading ends with a model or a ModelError."""
    content = make_file(dtype="int8", scale=0.1, names=("a", "b"))
    refused = 0
    for place in range(8, len(content) - 4, 4):
        for value in (0xFFFFFFFF, 0x7FFFFFFF, 0x10000):
            changed = content[:place] + struct.pack("<I", value) + content[place + 4 :]
            try:
                read(changed)
            except ModelError as error:
                refused += 1
                assert "damaged" in str(error)
    assert refused > 100


def test_references_out_of_range(read):
    with pytest.raises(ModelError, match="tensor that there is not"):
        read(make_file(output_index=99))
    with pytest.raises(ModelError, match="zero point"):
        read(make_file(dtype="int8", scale=0.1, zero=300))


def test_not_a_model(read, tmp_path):
    with pytest.raises(ModelError, match="is not a TFLite model"):
        read(b"PK\3\4" + bytes(100))
    with pytest.raises(ModelError, match="no model file"):
        read_model(tmp_path / "none.tflite")
    with pytest.raises(Damaged):
        root_table(memoryview(b"\xff" * 64), b"TFL3")


def test_operators_that_no_board_has(read):
    with pytest.raises(ModelError, match="FlexErf") as caught:
        read(make_file(custom="FlexErf"))
    assert "builtin operators" in caught.value.fix
    with pytest.raises(ModelError, match="Edge TPU"):
        read(make_file(custom="edgetpu-custom-op"))


def test_numbers_are_read_little_endian(read):
    model = read(make_file(shape=(1, 2, 3, 258)))
    assert model.tensors[0].shape == (1, 2, 3, 258)
    assert np.prod(model.tensors[0].shape) == model.tensors[2].shape[1]
