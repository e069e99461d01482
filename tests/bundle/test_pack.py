import hashlib
import json
from dataclasses import replace

import pytest

from edgeq.bundle.manifest import FileRole, SourceModel
from edgeq.bundle.pack import ContentFile, calibration_list, source_model, write_bundle
from edgeq.bundle.read import open_bundle
from edgeq.errors import BundleError, InputError, OutputError
from edgeq.types import InputSpec, ResizeRule


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_layout(bundle):
    assert sorted(content_of(bundle.folder)) == [
        "labels.txt",
        "manifest.json",
        "model.qdq.onnx",
        "recipe.toml",
        "reference/float.onnx",
        "reports/accuracy.json",
    ]
    assert (bundle.folder / "labels.txt").read_text() == "person\nbi cycle\n"
    assert list(json.loads((bundle.folder / "manifest.json").read_text()))[:2] == ["format", "schema"]


def test_what_goes_in_comes_out(bundle, contents):
    again = open_bundle(bundle.folder)
    manifest = again.manifest
    assert manifest == bundle.manifest
    assert manifest.input == contents.input
    assert manifest.head == contents.head
    assert manifest.postprocess == contents.postprocess
    assert manifest.calibration.images[1].key == "b.jpg"
    assert manifest.versions["onnxruntime"] == "1.20.0"
    assert manifest.plan == {"int8": 104, "float": ["stem"]}
    assert again.artifact_path.read_bytes() == contents.files[0].content
    assert again.qdq_path == again.artifact_path
    assert again.reference_path.name == "float.onnx"
    assert again.artifact_size_mb == pytest.approx(0.001)
    assert again.report("accuracy")["models"][0]["map50_95"] == 0.34
    assert again.report("latency") is None
    assert again.unexpected == ()


def test_every_file_has_its_digest(bundle):
    for name, data in content_of(bundle.folder).items():
        if name != "manifest.json":
            entry = bundle.manifest.files[name]
            assert entry.sha256 == hashlib.sha256(data).hexdigest()
            assert entry.size_bytes == len(data)
    manifest = (bundle.folder / "manifest.json").read_bytes()
    assert bundle.manifest_sha256 == hashlib.sha256(manifest).hexdigest()


def test_same_contents_same_bytes(tmp_path, bundle, contents):
    other = write_bundle(tmp_path / "elsewhere" / "again", contents)
    assert content_of(other.folder) == content_of(bundle.folder)


def test_only_the_time_stamp_differs(tmp_path, bundle, contents, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    other = write_bundle(tmp_path / "b", replace(contents, created_at=None))
    assert other.manifest.created_at == "1970-01-01T00:00:00Z"
    assert other.manifest.model_copy(update={"created_at": bundle.manifest.created_at}) == bundle.manifest


def test_folder_artifact_and_separate_qdq(tmp_path, contents):
    files = (
        ContentFile("model.mlpackage/Manifest.json", FileRole.ARTIFACT, b"{}"),
        ContentFile("model.mlpackage/Data/weights.bin", FileRole.ARTIFACT, b"w" * 10),
        ContentFile("model.qdq.onnx", FileRole.QDQ, b"qdq"),
    )
    made = write_bundle(tmp_path / "b", replace(contents, artifact="model.mlpackage", files=files))
    assert made.artifact_path.is_dir()
    assert made.qdq_path.name == "model.qdq.onnx"
    assert made.reference_path is None
    assert made.artifact_size_mb == pytest.approx(12e-6)


def test_existing_folder(bundle, contents):
    with pytest.raises(OutputError, match="exists already"):
        write_bundle(bundle.folder, contents)
    again = write_bundle(bundle.folder, replace(contents, name="second"), force=True)
    assert again.manifest.name == "second"


def test_nothing_is_left_when_a_source_file_is_missing(tmp_path, contents):
    files = (*contents.files, ContentFile("extra.bin", FileRole.ARTIFACT, tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        write_bundle(tmp_path / "b", replace(contents, files=files))
    assert list(tmp_path.iterdir()) == []


def test_interrupted_half_way(tmp_path, contents, monkeypatch):
    def interrupted(manifest):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeq.bundle.pack.manifest_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "b", contents)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"artifact": "other.onnx"}, InputError, "not among"),
        ({"files": ()}, InputError, "not among"),
        (
            {"files": (ContentFile("model.qdq.onnx", FileRole.ARTIFACT, b"1"),) * 2},
            InputError,
            "differ",
        ),
        (
            {"files": (ContentFile("../model.qdq.onnx", FileRole.ARTIFACT, b"1"),)},
            BundleError,
            "not a plain path",
        ),
    ],
)
def test_contradicting_contents(tmp_path, contents, changes, error, message):
    with pytest.raises(error, match=message):
        write_bundle(tmp_path / "b", replace(contents, **changes))
    assert list(tmp_path.iterdir()) == []


def test_source_model_and_calibration_digest(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"abc")
    assert source_model(tmp_path / "m.onnx") == SourceModel(
        name="m.onnx", sha256=hashlib.sha256(b"abc").hexdigest(), size_bytes=3
    )
    one, two = ("a", "01" * 32), ("b", "02" * 32)
    assert calibration_list("x", [one, two]).sha256 != calibration_list("x", [two, one]).sha256


def test_specs_keep_their_types(tmp_path, contents):
    spec = InputSpec("x", 224, 192, resize=ResizeRule.CENTER_CROP, mean=(1.5, 2.0, 3.0), short_side_px=256)
    again = open_bundle(write_bundle(tmp_path / "b", replace(contents, input=spec)).folder)
    assert again.manifest.input == spec
    assert again.manifest.input.resize is ResizeRule.CENTER_CROP
