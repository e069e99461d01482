"""Sessions of TFLite: types at the boundary, delegates, errors."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.tflite import native
from edgeq.runtimes.tflite.native import delegated
from edgeq.runtimes.tflite.session import open_session
from runtimes.contract import ROOT, RuntimeContract

from .files import ADD, make_file

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")


class TestTfliteContract(RuntimeContract):
    name = "tflite"

    def test_xnnpack_is_recorded(self, runtime, artifact):
        on = runtime.open_session(artifact.path, options=SessionOptions()).details
        assert on["delegate"] == "XNNPACK"
        taken, whole = on["delegated_ops"].split(" in ")[0].split(" of ")
        assert 4 <= int(taken) <= int(whole)
        off = runtime.open_session(artifact.path, options=SessionOptions(xnnpack=False)).details
        assert off["delegate"] == "none"
        assert off["delegated_ops"] == f"0 of {whole}"

    def test_with_and_without_xnnpack_agree_in_float(self, runtime, artifact, float_model):
        on = runtime.open_session(artifact.path, options=SessionOptions())
        off = runtime.open_session(artifact.path, options=SessionOptions(xnnpack=False))
        tensor = self.tensor(on, float_model)
        np.testing.assert_allclose(on.infer(tensor)["output0"], off.infer(tensor)["output0"], atol=1e-3)


@pytest.fixture
def opened(tmp_path):
    def run(content, **options):
        path = tmp_path / "m.tflite"
        path.write_bytes(content)
        return open_session(path, SessionOptions(**options))

    return run


@pytest.mark.parametrize("xnnpack", [None, False])
@pytest.mark.parametrize(
    ("dtype", "scale", "zero"), [("int8", 0.02, -5), ("uint8", 0.01, 120), ("int16", 0.001, 0)]
)
def test_integer_inputs_and_outputs_are_float32_to_callers(dtype, scale, zero, xnnpack, opened):
    session = opened(make_file(dtype=dtype, scale=scale, zero=zero), xnnpack=xnnpack)
    assert session.inputs[0].dtype == session.outputs[0].dtype == "float32"
    assert session.details["input_dtype"] == dtype
    x = np.random.default_rng(0).normal(0, 2, (1, 4, 4, 3)).astype(np.float32)
    limits = np.iinfo(dtype)
    integers = np.clip(np.rint(x / np.float32(scale)) + zero, limits.min, limits.max)
    expected = (integers.reshape(1, -1).astype(np.float32) - zero) * np.float32(scale)
    found = session.infer(x)["out"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_integers_without_a_scale_mean_themselves(opened):
    session = opened(make_file(dtype="uint8"))
    x = np.array([-3.0, 0.4, 113.7, 300.0], np.float32).repeat(12).reshape(1, 4, 4, 3)
    assert sorted(set(session.infer(x)["out"].ravel().tolist())) == [0.0, 114.0, 255.0]


def test_names_come_from_the_signature(opened):
    session = opened(make_file(names=("images", "output0")))
    assert session.inputs[0].name == "images"
    assert list(session.infer(np.zeros((1, 4, 4, 3), np.float32))) == ["output0"]


def test_outputs_are_the_callers_own(opened):
    session = opened(make_file())
    first = session.infer(np.ones((1, 4, 4, 3), np.float32))["out"]
    session.infer(np.zeros((1, 4, 4, 3), np.float32))
    assert first.min() == 1.0


def test_dynamic_size_is_refused(opened):
    with pytest.raises(ModelError, match="no fixed size") as caught:
        opened(make_file(signature=(1, -1, -1, 3)))
    assert "fixed input size" in caught.value.fix
    assert opened(make_file(signature=(-1, 4, 4, 3))).inputs[0].shape == (1, 4, 4, 3)


def test_several_inputs_are_refused_when_run(opened):
    session = opened(make_file(inputs=2))
    assert len(session.inputs) == 2
    with pytest.raises(ModelError, match="2 inputs"):
        session.infer(np.zeros((1, 4, 4, 3), np.float32))


def test_unknown_custom_operators_are_named(opened):
    with pytest.raises(ModelError, match="Bend"):
        opened(make_file(custom="Bend"))


def test_what_tflite_refuses_is_a_model_error(opened):
    with pytest.raises(ModelError, match="cannot load"):
        opened(make_file(code=ADD))  # float + int32


def test_no_line_of_the_runtime_reaches_stderr(tmp_path):
    (tmp_path / "m.tflite").write_bytes(make_file())
    code = (
        "import sys; from pathlib import Path\n"
        "from edgeq.runtimes.tflite.session import open_session\n"
        "from edgeq.runtimes.base import SessionOptions\n"
        f"open_session(Path({str(tmp_path / 'm.tflite')!r}), SessionOptions())\n"
        "assert not {'onnx', 'pydantic', 'cv2', 'rich', 'flatbuffers'} & set(sys.modules), set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_neither_wheel(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "_WHEELS", {"ai-edge-litert": "no_such_module_a", "tflite-runtime": "no_b"})
    (tmp_path / "m.tflite").write_bytes(make_file())
    with pytest.raises(UnavailableError, match="no_such_module_a") as caught:
        open_session(tmp_path / "m.tflite", SessionOptions())
    assert "edgeq[tflite]" in caught.value.fix


def test_the_old_wheel_is_taken_where_the_new_one_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(
        native,
        "_WHEELS",
        {"no-such-wheel": "no_such_module_a", "ai-edge-litert": "ai_edge_litert.interpreter"},
    )
    (tmp_path / "m.tflite").write_bytes(make_file())
    assert open_session(tmp_path / "m.tflite", SessionOptions()).details["package"] == "ai-edge-litert"


def test_delegated_operators_lie_between_a_pieces_ends():
    def op(name, inputs, outputs):
        return {"op_name": name, "inputs": inputs, "outputs": outputs}

    chain = [op("A", [0], [1]), op("B", [1], [2]), op("C", [2], [3]), op("D", [3, 1], [4])]
    pieces = [op("DELEGATE", [0], [1, 2]), op("DELEGATE", [3, 1], [4])]
    assert delegated([*chain, *pieces]) == (frozenset({0, 1, 3}), 2)
    assert delegated(chain) == (frozenset(), 0)


def test_a_file_from_the_wild(shared_data: Path):
    session = open_session(shared_data / "models/yolo11n_coco_640_pertensor_int8.tflite", SessionOptions())
    assert session.inputs[0].shape == (1, 640, 640, 3)
    assert session.outputs[0].shape == (1, 84, 8400)
    assert session.metadata["task"] == "detect"
    assert "79: 'toothbrush'" in session.metadata["names"]
