import json

import pytest

from edgeq.bundle.manifest import FileRole, SourceModel
from edgeq.bundle.pack import BundleContents, ContentFile, calibration_list, write_bundle
from edgeq.types import HeadFamily, HeadSpec, InputSpec, PostProcess


def make_contents(**changes):
    values = {
        "name": "yolox_nano",
        "target": "x86-onnxruntime",
        "runtime": "onnxruntime",
        "artifact": "model.qdq.onnx",
        "files": (
            ContentFile("model.qdq.onnx", FileRole.ARTIFACT, b"int8 model" * 100),
            ContentFile("reference/float.onnx", FileRole.REFERENCE, b"float model" * 400),
        ),
        "recipe_toml": "schema = 1\n",
        "source": SourceModel(name="yolox.onnx", sha256="ab" * 32, size_bytes=123),
        "calibration": calibration_list("data.yaml", [("a.jpg", "01" * 32), ("b.jpg", "02" * 32)]),
        "input": InputSpec("images", 416, 416),
        "head": HeadSpec(HeadFamily.YOLOX, "output", ("person", "bi\ncycle")),
        "postprocess": PostProcess(),
        "versions": {"onnxruntime": "1.20.0", "numpy": "2.0"},
        "plan": {"int8": 104, "float": ["stem"]},
        "reports": {"accuracy": {"models": [{"name": "int8", "map50_95": 0.34}]}},
        "created_at": "2026-11-21T12:00:00Z",
    }
    return BundleContents(**{**values, **changes})


@pytest.fixture
def contents():
    return make_contents()


@pytest.fixture
def bundle(tmp_path, contents):
    return write_bundle(tmp_path / "bundle", contents)


@pytest.fixture
def edit_manifest(bundle):
    """Change the written manifest as an attacker or an accident would."""

    def edit(change):
        path = bundle.folder / "manifest.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        return bundle.folder

    return edit
