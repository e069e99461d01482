import json
import os

import pytest

from edgeq.bundle.read import add_page, add_report, open_bundle
from edgeq.errors import BundleError, InputError, OutputError


def refuse(folder, message, **options):
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(folder, **options)
    return caught.value


@pytest.mark.parametrize("name", ["model.qdq.onnx", "recipe.toml", "labels.txt", "reference/float.onnx"])
def test_a_changed_file_is_named(bundle, name):
    path = bundle.folder / name
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    refuse(bundle.folder, f"{name}.*was changed")
    open_bundle(bundle.folder, verify=False)


def test_a_cut_file_and_a_missing_one(bundle):
    path = bundle.folder / "model.qdq.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    refuse(bundle.folder, "999 bytes, the manifest says 1000")
    path.unlink()
    refuse(bundle.folder, "'model.qdq.onnx' is missing")


@pytest.mark.parametrize("keep", [0, 1, 40, 500, -3])
def test_a_truncated_manifest(bundle, keep):
    path = bundle.folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:keep])
    refuse(bundle.folder, "manifest.json is damaged")


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "a/../../outside",
        "a//b",
        "./a",
        "",
        "C:\\windows",
        "a\\..\\b",
        "a:stream",
        "line\nbreak",
        "a\x00b",
        "trailing.",
        "x" * 300,
        "..",
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_names_that_lead_elsewhere(edit_manifest, tmp_path, name, verify):
    (tmp_path / "outside").write_text("secret")
    folder = edit_manifest(
        lambda data: data["files"].update({name: {"role": "report", "sha256": "0" * 64, "size_bytes": 6}})
    )
    refuse(folder, "not a plain path inside the bundle", verify=verify)


def test_links_are_not_followed(bundle, tmp_path):
    path = bundle.folder / "model.qdq.onnx"
    path.rename(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    refuse(bundle.folder, "symbolic link")
    path.unlink()
    (tmp_path / "real").rename(path)
    reference = bundle.folder / "reference"
    reference.rename(tmp_path / "moved")
    reference.symlink_to(tmp_path / "moved")
    refuse(bundle.folder, "symbolic link")


def test_a_pipe_does_not_hang(bundle):
    path = bundle.folder / "recipe.toml"
    path.unlink()
    os.mkfifo(path)
    refuse(bundle.folder, "not a plain file")


def test_a_newer_schema_says_so(edit_manifest):
    error = refuse(edit_manifest(lambda data: data.update(schema=2)), "schema 2.*a newer edgeq")
    assert "upgrade" in error.fix


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("source"), "source"),
        (lambda d: d.update(format="other"), "not the manifest of an edgeq bundle"),
        (lambda d: d.update(schema=True), "schema True"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.update(artifact="../x"), "not among the files"),
        (lambda d: d["files"].pop("model.qdq.onnx"), "not among the files"),
        (lambda d: d["files"].pop("recipe.toml"), "no recipe"),
        (lambda d: d["files"]["labels.txt"].update(sha256="zz"), "labels.txt.sha256"),
        (lambda d: d["files"]["labels.txt"].update(size_bytes=-1), "labels.txt.size_bytes"),
        (lambda d: d["input"].update(height_px=10**9), "pixels"),
        (lambda d: d["input"].update(std=[1, 0, 1]), "std"),
        (lambda d: d["head"].update(family="unknown"), "head.family"),
        (lambda d: d.update(task="classify"), "does not serve"),
        (lambda d: d["files"].update({"LABELS.txt": d["files"]["labels.txt"]}), "missing|one file on some"),
    ],
)
def test_wrong_manifests(edit_manifest, change, message):
    refuse(edit_manifest(change), message)


def test_json_that_two_readers_read_differently(bundle):
    path = bundle.folder / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"schema": 1,', '"schema": 1, "schema": 1,', 1))
    refuse(bundle.folder, "key occurs twice")
    path.write_text(text.replace('"int8": 104', '"int8": NaN'))
    refuse(bundle.folder, "NaN is not JSON")
    path.write_text("[" * 200_000)
    refuse(bundle.folder, "damaged")


def test_not_a_bundle(tmp_path):
    assert "edgeq quantize" in refuse(tmp_path, "has no manifest.json").fix
    (tmp_path / "model.onnx").write_text("x")
    refuse(tmp_path / "model.onnx", "not a bundle")
    (tmp_path / "manifest.json").write_text("[]")
    refuse(tmp_path, "not the manifest")


def test_unexpected_files_are_reported_not_used(bundle):
    (bundle.folder / "notes").mkdir()
    (bundle.folder / "notes" / "todo.txt").write_text("x")
    (bundle.folder / "reports" / "extra.json").write_text("{}")
    opened = open_bundle(bundle.folder)
    assert opened.unexpected == ("notes/todo.txt", "reports/extra.json")
    assert opened.report("extra") is None


def test_add_report(bundle):
    added = add_report(bundle, "latency", {"b": [1, 2], "a": float("nan")})
    again = open_bundle(bundle.folder)
    assert again == added
    assert again.report("latency") == {"a": None, "b": [1, 2]}
    assert again.report_names == ("accuracy", "latency")
    assert again.manifest_sha256 != bundle.manifest_sha256
    replaced = add_report(added, "latency", {"a": 2})
    assert open_bundle(bundle.folder).report("latency") == {"a": 2}
    assert add_page(replaced, "<html></html>").manifest.files["report.html"].size_bytes == 13
    open_bundle(bundle.folder)


def test_reports_of_two_commands_are_both_kept(bundle):
    add_report(bundle, "latency", {"a": 1})
    add_report(bundle, "audit", {"a": 1})
    assert open_bundle(bundle.folder).report_names == ("accuracy", "audit", "latency")


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b", ".hidden"])
def test_report_names_are_plain(bundle, name):
    with pytest.raises(InputError, match="not plain"):
        add_report(bundle, name, {})


def test_every_cut_of_add_report_leaves_a_valid_bundle(bundle, monkeypatch):
    import edgeq.bundle.read as module

    add_report(bundle, "latency", {"a": 1})
    write = module.atomic_write
    for fail_at in range(3):
        calls = iter(range(10))

        def failing(path, data, calls=calls, fail_at=fail_at):
            if next(calls) == fail_at:
                raise OutputError("the disk is full")
            write(path, data)

        monkeypatch.setattr(module, "atomic_write", failing)
        with pytest.raises(OutputError):
            add_report(bundle, "latency", {"a": fail_at + 10})
        monkeypatch.undo()
        assert open_bundle(bundle.folder).report("latency") in ({"a": 1}, None)
        add_report(bundle, "latency", {"a": 1})


def test_a_report_changed_after_opening_is_refused(bundle):
    (bundle.folder / "reports" / "accuracy.json").write_text(json.dumps({"map50_95": 0.99}))
    with pytest.raises(BundleError, match=r"accuracy\.json"):
        bundle.report("accuracy")
