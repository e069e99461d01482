"""Options of one runtime: from the user's text to a session, here and on a device."""

from __future__ import annotations

from dataclasses import fields

import pytest

from edgeq.errors import InputError
from edgeq.runtimes import load_runtime, runtime_names
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.options import chosen_options, options_from_json, options_json, runtime_options


def named(name):
    return load_runtime(name, installed=False)


def test_each_runtime_declares_fields_that_there_are():
    known = {entry.name for entry in fields(SessionOptions)}
    declared = [option for name in runtime_names() for option in runtime_options(named(name))]
    assert {option.name for option in declared} >= {"compute-units", "dla-core", "xnnpack"}
    assert all(option.field in known and option.help for option in declared)


def test_text_becomes_options():
    assert chosen_options(named("coreml"), []) == SessionOptions()
    assert chosen_options(named("coreml"), ["compute-units=cpu-only"]).compute_units == "cpu-only"
    assert chosen_options(named("tensorrt"), ["dla-core=1"]).dla_core == 1
    assert chosen_options(named("tflite"), ["xnnpack=off"]).xnnpack is False


@pytest.mark.parametrize(
    ("runtime", "texts", "words"),
    [
        ("coreml", ["compute-units"], "NAME=VALUE"),
        ("coreml", ["compute_units=all"], "did you mean compute-units"),
        ("coreml", ["compute-units=npu"], "all, cpu-and-ne, cpu-and-gpu, cpu-only"),
        ("coreml", ["compute-units=all", "compute-units=cpu-only"], "twice"),
        ("tensorrt", ["dla-core=first"], "a whole number"),
        ("tensorrt", ["dla-core=-1"], "a whole number"),
        ("tensorrt", ["compute-units=all"], "it has dla-core"),
        ("onnxruntime", ["xnnpack=off"], "has no options"),
    ],
)
def test_what_a_runtime_does_not_take_is_said(runtime, texts, words):
    with pytest.raises(InputError) as caught:
        chosen_options(named(runtime), texts)
    assert words in f"{caught.value.message} {caught.value.fix}"


def test_they_travel_as_plain_data():
    options = SessionOptions(threads=3, xnnpack=False, compute_units="cpu-only", dla_core=0)
    assert options_json(options) == {
        "threads": 3, "xnnpack": False, "compute_units": "cpu-only", "dla_core": 0,
    }  # fmt: skip
    assert options_from_json(options_json(options)) == options
    assert options_from_json({}) == SessionOptions()


@pytest.mark.parametrize(
    "data", [[], {"threads": "3"}, {"threads": True}, {"fpga": 1}, {"dla_core": 0.5}, None]
)
def test_other_data_is_refused(data):
    with pytest.raises(InputError, match="session options"):
        options_from_json(data)
