"""What the environment is made of, without making it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeq.errors import InputError, UnavailableError
from tools.arm import cache, recipe
from tools.arm.cpu import CPUS, cpu_named

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


def test_wheels_are_what_a_device_installs() -> None:
    """The offline wheel set is that of ``pip install "edgeq[tflite]"``: nothing forgotten, nothing more."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"].get("tflite", ())}
    names = {line.split(">")[0].split(";")[0].strip() for line in wanted if "python_version" not in line}
    assert {wheel.split(">")[0] for wheel in recipe.WHEELS} == names | {"ai-edge-litert"}


def test_another_recipe_is_another_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEQ_ARM_CACHE", str(tmp_path))
    first = cache.locate()
    monkeypatch.setattr(recipe, "VERSION", recipe.VERSION + 1)
    assert cache.locate().folder != first.folder
    assert cache.locate().shared == first.shared == tmp_path


def test_an_environment_that_was_not_made_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEQ_ARM_CACHE", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"python -m tools\.arm make"):
        cache.require()
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    target = tmp_path / "part"
    with pytest.raises(RuntimeError), cache.whole(target) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert not target.exists()


def test_cpu_profiles() -> None:
    assert set(CPUS) == {"cortex-a53", "cortex-a72", "cortex-a76"}
    dot_product = {name for name, cpu in CPUS.items() if "asimddp" in cpu.features.split()}
    assert dot_product == {"cortex-a76"}
    text = CPUS["cortex-a76"].cpuinfo()
    assert text.count("processor\t: ") == 4
    assert text.count("CPU part\t: 0xd0b\n") == 4
    with pytest.raises(InputError, match="cortex-a72"):
        cpu_named("m1")
