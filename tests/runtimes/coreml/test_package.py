"""Untrusted packages: refused before anything parses them."""

from __future__ import annotations

import json
import shutil

import pytest

from edgeq.errors import ModelError, OutputError
from edgeq.runtimes.base import LowerOptions
from edgeq.runtimes.coreml import RUNTIME
from edgeq.runtimes.coreml import package as package_module
from edgeq.runtimes.coreml.interpret.program import load_program
from edgeq.runtimes.coreml.package import MODEL_FILE, check_package, package_files
from tests.runtimes.coreml.helpers import Graph


@pytest.fixture
def data():
    g = Graph(1, 4)
    return g.build(g.op("Relu", "x"))


@pytest.fixture
def path(data, tmp_path):
    return RUNTIME.lower(data, tmp_path, options=LowerOptions()).path


def test_a_package_is_a_folder_whose_files_are_all_listed(data, tmp_path):
    artifact = RUNTIME.lower(data, tmp_path, options=LowerOptions(name="it"))
    assert artifact.path == tmp_path / "it.mlpackage"
    found = sorted(file for file in artifact.path.rglob("*") if file.is_file())
    assert list(artifact.files) == found
    assert artifact.size_mb == pytest.approx(sum(file.stat().st_size for file in found) / 1e6)
    check_package(artifact.path)


def test_one_that_is_there_is_not_overwritten(data, path):
    before = {file: file.read_bytes() for file in package_files(path)}
    with pytest.raises(OutputError, match="exists"):
        RUNTIME.lower(data, path.parent, options=LowerOptions())
    assert {file: file.read_bytes() for file in package_files(path)} == before


def manifest(path, change):
    file = path / "Manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def outside(content):
    for entry in content["itemInfoEntries"].values():
        if "weights" in entry["path"]:
            entry["path"] = "../../etc"


DAMAGES = {
    "no manifest": (lambda path: (path / "Manifest.json").unlink(), "Manifest.json is missing"),
    "empty model": (lambda path: (path / MODEL_FILE).write_bytes(b""), "missing or empty"),
    "no JSON": (lambda path: (path / "Manifest.json").write_text("{"), "damaged"),
    "deep JSON": (lambda path: (path / "Manifest.json").write_text("[" * 100_000), "damaged"),
    "no root": (lambda path: manifest(path, lambda c: c.pop("rootModelIdentifier")), "damaged"),
    "outside": (lambda path: manifest(path, outside), "outside"),
    "a link": (lambda path: (path / "Data" / "link").symlink_to("/etc/hostname"), "neither a file"),
    "a linked folder": (lambda path: (path / "more").symlink_to("/etc"), "neither a file"),
    "many files": (lambda path: [(path / f"f{n}").write_text("") for n in range(70)], "over 64 files"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_packages_are_refused(path, name):
    damage, words = DAMAGES[name]
    damage(path)
    with pytest.raises(ModelError, match=words):
        load_program(path)


def test_files_that_are_too_large_are_refused(path, monkeypatch):
    monkeypatch.setitem(package_module._LIMITS_BYTES, MODEL_FILE, 10)
    with pytest.raises(ModelError, match="more than the 10"):
        load_program(path)


def test_a_model_that_is_none_is_refused(path):
    content = (path / MODEL_FILE).read_bytes()
    for damaged in (b"no model at all", content[: len(content) // 2]):
        (path / MODEL_FILE).write_bytes(damaged)
        with pytest.raises(ModelError, match="no mlprogram"):
            load_program(path)


def test_what_is_no_package_is_refused(path, tmp_path):
    with pytest.raises(ModelError, match="no model file"):
        load_program(tmp_path / "none.mlpackage")
    file = tmp_path / "file.mlpackage"
    file.write_bytes(b"x")
    with pytest.raises(ModelError, match="a package is a folder"):
        load_program(file)
    linked = tmp_path / "linked.mlpackage"
    linked.symlink_to(path)
    with pytest.raises(ModelError, match="a package is a folder"):
        load_program(linked)


def test_weights_that_are_cut_off_are_refused(tmp_path):
    import numpy as np

    g = Graph(1, 64)
    weight = g.constant(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
    made = RUNTIME.lower(g.build(g.op("MatMul", "x", weight)), tmp_path, options=LowerOptions()).path
    (blob,) = (file for file in package_files(made) if file.name == "weight.bin")
    blob.write_bytes(blob.read_bytes()[:100])
    with pytest.raises(ModelError, match="no mlprogram"):
        load_program(made)
    shutil.rmtree(blob.parent)
    with pytest.raises(ModelError, match="no mlprogram"):
        load_program(made)
