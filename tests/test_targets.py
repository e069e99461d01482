import pytest

from edgeq.errors import RecipeError
from edgeq.resources import data_folder
from edgeq.targets import list_targets, load_target
from edgeq.types import IntegerType

SHIPPED = data_folder("targets") / "x86-onnxruntime.toml"


@pytest.fixture
def variant(tmp_path):
    """Write the shipped profile with one text replaced, and load it."""

    def make(old, new):
        text = SHIPPED.read_text()
        assert old in text
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new, 1))
        return load_target(path)

    return make


def test_shipped_targets_are_complete():
    targets = {target.name: target for target in list_targets()}
    assert {"x86-onnxruntime", "arm64-onnxruntime"} <= set(targets)
    for name, target in targets.items():
        assert target.origin.stem == name
        assert target.notes, f"{name} has no sourced notes"
        assert not target.budget.empty
        assert load_target(name) == target
    assert targets["x86-onnxruntime"].activation_dtype is IntegerType.UINT8
    assert targets["arm64-onnxruntime"].architecture == "aarch64"
    assert targets["x86-onnxruntime"].budget.max_map_drop == 1.0


TFLITE = {
    *("raspberry-pi-5", "raspberry-pi-4", "raspberry-pi-3", "raspberry-pi-zero-2-w"),
    *("arm64-linux", "android-arm64", "x86-tflite"),
}


def test_tflite_targets():
    targets = {target.name: target for target in list_targets()}
    assert set(targets) >= TFLITE
    for name in TFLITE:
        target = targets[name]
        assert target.runtime == "tflite"
        assert target.activation_dtype is IntegerType.INT8
        assert all(note.source for note in target.notes)
        assert (target.wheels is None) == (name == "android-arm64")
    boards = [targets[name] for name in sorted(TFLITE) if name.startswith("raspberry-pi")]
    assert {target.cores for target in boards} == {4}
    assert [target.name for target in boards if target.cpu_features] == ["raspberry-pi-5"]


def test_unknown_name_gives_the_nearest():
    with pytest.raises(RecipeError) as caught:
        load_target("x86-onxruntime")
    assert "did you mean x86-onnxruntime" in caught.value.fix


def test_own_file(variant):
    mine = variant("max_map_drop = 1.0", "max_map_drop = 0.3\nmax_p95_ms = 60")
    assert mine.budget.max_map_drop == 0.3
    assert mine.budget.max_p95_ms == 60
    assert mine.origin.name == "mine.toml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threads = 1", "threds = 1", "unknown key 'threds'; did you mean threads"),
        ("max_map_drop", "max_mapp_drop", "unknown key 'budget.max_mapp_drop'; did you mean max_map_drop"),
        ("why =", "whi =", "unknown key 'cpu_features.0.whi'; did you mean why"),
        ("threads = 1", "threads = 0", "threads"),
        ("max_map_drop = 1.0", "max_map_drop = nan", "max_map_drop"),
        ('"uint8"', '"float8"', "activation_dtype"),
        ("title =", "# title =", "title: Field required"),
        ("schema = 1", "schema = 2", "has schema 2, this edgeq reads 1"),
        ("schema = 1", "", "schema"),
        ("threads = 1", "threads = 1\nmemory_mb = 0", "memory_mb"),
        ("[budget]", '[wheels]\nplatforms = ["a b"]\npython = ["3.11"]\n[budget]', "wheels.platforms"),
        ("[budget]", '[wheels]\nplatforms = ["x"]\npythons = ["3.11"]\n[budget]', "did you mean python"),
        ("schema = 1", "schema == 1", "is not TOML"),
    ],
)
def test_wrong_files(variant, old, new, message):
    with pytest.raises(RecipeError, match=message):
        variant(old, new)


def test_missing_file(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        load_target(str(tmp_path / "none.toml"))


def test_binary_file(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not TOML"):
        load_target(tmp_path / "a.toml")
