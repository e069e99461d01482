"""``trtexec`` played by a script."""

import sys

import numpy as np
import pytest

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import LayerPrecision, SessionOptions
from edgeq.runtimes.tensorrt import audit as audit_module
from edgeq.runtimes.tensorrt import session, trtexec

PROGRAM = """#!{python}
import json, sys
import numpy as np
given = dict(entry.lstrip("-").partition("=")[::2] for entry in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec")
if "help" in given:
    sys.exit(0)
open(r"{log}", "a").write(" ".join(sys.argv[1:]) + "\\n")
if "onnx" in given:
    if open(given["onnx"], "rb").read() == b"bad":
        print("[E] Error[4]: the zero point must be all zeros")
        sys.exit(1)
    open(given["saveEngine"], "wb").write(b"engine")
    conv = {{"Name": "c", "LayerType": "CaskConvolution", "Inputs": [{{"Datatype": "Int8"}}],
            "Weights": {{"Type": "Int8"}}, "Metadata": "[ONNX Layer: conv1]"}}
    json.dump({{"Layers": [conv], "Bindings": ["x", "y"]}}, open(given["exportLayerInfo"], "w"))
else:
    x = np.zeros(4, np.float32)
    if "loadInputs" in given:
        name, _, path = given["loadInputs"].partition(":")
        x = np.fromfile(path, np.float32)
    out = [{{"name": "y", "dimensions": "1x4", "values": (2 * x).tolist()}}]
    json.dump(out, open(given["exportOutput"], "w"))
"""


@pytest.fixture
def program(tmp_path):
    def make(version="100300"):
        path = tmp_path / "trtexec"
        text = PROGRAM.format(python=sys.executable, version=version, log=tmp_path / "log")
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"good")
    return path


def test_it_builds_and_infers(program, artifact, tmp_path):
    opened = trtexec.TrtexecSession(program(), artifact, SessionOptions())
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    np.testing.assert_array_equal(opened.infer(x)["y"], 2 * x)
    assert (opened.inputs[0].name, opened.outputs[0].name) == ("x", "y")
    assert opened.details["version"] == "10.3.0"
    built = (tmp_path / "log").read_text().splitlines()[0]
    assert all(flag in built for flag in ("--stronglyTyped", "--noTF32", "--profilingVerbosity=detailed"))


def test_11_is_strongly_typed_by_itself(program, artifact, tmp_path):
    trtexec.TrtexecSession(program("110401"), artifact, SessionOptions(default_float=True))
    assert "--stronglyTyped" not in (tmp_path / "log").read_text()
    assert "--noTF32" not in (tmp_path / "log").read_text()


def test_its_own_words_are_in_the_error(program, artifact):
    artifact.write_bytes(b"bad")
    with pytest.raises(ModelError, match="zero point must be all zeros"):
        trtexec.TrtexecSession(program(), artifact, SessionOptions())


@pytest.mark.parametrize("version", ["8502", "080601"])
def test_old_versions_are_refused(program, artifact, version):
    with pytest.raises(UnavailableError, match="TensorRT 10"):
        trtexec.TrtexecSession(program(version), artifact, SessionOptions())


def test_no_dla_by_this_way(program, artifact):
    with pytest.raises(UnavailableError, match="DLA"):
        trtexec.TrtexecSession(program(), artifact, SessionOptions(dla_core=0))


def test_it_stands_in_for_the_module(program, artifact, monkeypatch):
    path = program()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for module in (session, audit_module):
        monkeypatch.setattr(module, "find_trtexec", lambda: path)
    assert session.open_session(artifact, SessionOptions()).details["version"] == "10.3.0"
    report = audit_module.audit(artifact, options=SessionOptions())
    assert [(layer.name, layer.precision) for layer in report.layers] == [("conv1", LayerPrecision.INT8)]
    assert report.details["by"] == "trtexec"
