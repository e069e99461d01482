"""Setting a device up: the environment appears whole or not at all, from wheels that were checked."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import edgeq.device.agent.install as install
import edgeq.device.provision as provision
from edgeq.device.agent.store import Store
from edgeq.device.answers import Probe
from edgeq.device.client import AgentError
from edgeq.device.local import LocalLink
from edgeq.device.provision import _choices, clean, set_up
from edgeq.device.wheels import DECODER, Platform, bundled_pip, pinned, platform_of
from edgeq.errors import InputError, UnavailableError


def make_wheel(folder: Path, name: str, *, code: str = "ANSWER = 42\n") -> Path:
    """A pure Python wheel of one module."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{file},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(file, text)
    return path


@pytest.fixture
def link(tmp_path, monkeypatch):
    """This machine, on which any platform will do."""
    try:
        bundled_pip(tmp_path / "pip")
    except Exception as error:
        pytest.skip(f"no pip wheel here: {error}")
    monkeypatch.setattr(provision, "platform_of", lambda *_: Platform("x86_64", sys.version_info[:2], 36))
    return LocalLink(tmp_path / "dev", python=sys.executable)


def test_an_environment_from_wheels_alone(link, tmp_path):
    make_wheel(tmp_path / "wheels", "onlyhere")
    done = set_up(link, ["onnxruntime"], offline=True, wheels=tmp_path / "wheels")
    assert done.changed
    assert done.packages["onlyhere"] == "1.0"
    python = tmp_path / "dev" / "venv" / "bin" / "python"
    said = subprocess.run(
        [str(python), "-c", "import onlyhere; print(onlyhere.ANSWER)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "42"
    assert not list((tmp_path / "dev" / "store" / "blobs").iterdir())
    again = set_up(link, ["onnxruntime"], offline=True, wheels=tmp_path / "wheels")
    assert not again.changed
    assert again.packages == done.packages
    clean(link)
    assert not (tmp_path / "dev").exists()


def test_a_failed_set_up_leaves_the_old_environment(link, tmp_path):
    make_wheel(tmp_path / "wheels", "onlyhere")
    set_up(link, ["onnxruntime"], offline=True, wheels=tmp_path / "wheels")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "bad-1.0-py3-none-any.whl").write_bytes(b"no wheel")
    with pytest.raises(AgentError, match="pip cannot install") as failure:
        set_up(link, ["onnxruntime"], offline=True, wheels=broken, force=True)
    assert failure.value.exit_code == 4
    folder = tmp_path / "dev"
    assert [path.name for path in folder.glob("venv*")] == ["venv"]
    assert list(folder.glob("venv/lib/python*/site-packages/onlyhere.py"))


@pytest.mark.parametrize("here", [True, False])
def test_an_environment_sees_the_tensorrt_of_jetpack(here, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(install, "_run", lambda command, what: commands.append(command))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if here else None)
    request = {"wheels": {}, "requirements": [], "offline": True, "runtimes": []}
    with pytest.raises(UnavailableError, match="no pip"):
        install.install(request, Store(tmp_path), SimpleNamespace(progress=lambda *_: None))
    assert ("--system-site-packages" in commands[0]) == here


def test_an_environment_lists_its_own_packages_only(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(tmp_path / "e")],
        check=True,
    )
    assert install._installed(str(tmp_path / "e" / "bin" / "python")) == {}


def test_a_board_with_tensorrt_of_its_own_gets_what_is_missing_to_it(link, tmp_path):
    make_wheel(tmp_path / "wheels", "onlyhere")
    told = []
    done = set_up(link, ["tensorrt"], offline=True, wheels=tmp_path / "wheels", note=told.append)
    assert set(done.packages) == {"onlyhere"}
    assert "part of its own system" in told[-1]
    again = set_up(link, ["tensorrt"], offline=True, wheels=tmp_path / "wheels")
    assert not again.changed
    for choice in _choices(["tensorrt"]):
        assert sorted(name.partition("==")[0] for name in choice) == ["numpy", DECODER]


def test_what_cannot_be_installed(link):
    with pytest.raises(InputError, match="coreml"):
        set_up(link, ["coreml"], offline=True)


def test_platform_tags_fit_the_devices_c_library():
    found = Probe(
        system="Linux",
        machine="aarch64",
        python="/usr/bin/python3",
        version=(3, 9, 2),
        libc=("glibc", "2.31"),
    )
    platform = platform_of(found, "pi")
    assert platform.tags[0] == "manylinux_2_31_aarch64"
    assert "manylinux2014_aarch64" in platform.tags
    assert not [tag for tag in platform.tags if "2_32" in tag]
    assert platform.python == (3, 9)


def test_versions_are_those_of_this_machine():
    from importlib.metadata import version

    assert pinned(["onnxruntime", "no-such-package", "numpy<2"]) == [
        f"onnxruntime=={version('onnxruntime')}", "no-such-package", "numpy<2",
    ]  # fmt: skip
