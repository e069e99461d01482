"""The README's commands exist, with the flags that it names."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

_README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
_COMMANDS = re.findall(r"^edgeq (device \w+|\w+) +(.*)$", _README, flags=re.MULTILINE)


def test_the_readme_shows_commands() -> None:
    assert len(_COMMANDS) >= 3


@pytest.mark.parametrize(("name", "rest"), _COMMANDS)
def test_every_flag_is_known(name: str, rest: str) -> None:
    command = [sys.executable, "-m", "edgeq.cli.main", *name.split(), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    flags = re.findall(r"(?<!\S)(--?[a-z][a-z0-9-]*)", rest.split("#")[0])
    assert [flag for flag in flags if flag not in text] == []


def test_no_number_is_left_out() -> None:
    assert re.findall(r"@[A-Z]+@", _README) == []


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert")
    (code,) = re.findall(r"^```python\n(.*?)^```$", _README, flags=re.MULTILINE | re.DOTALL)
    demo = Path(__file__).parent.parent / "calib_data" / "demo"
    for name, real in {"yolo11n.onnx": demo / "model.onnx", "data.yaml": demo / "data.yaml"}.items():
        assert f'"{name}"' in code
        code = code.replace(f'"{name}"', f'"{real}"')
    script = tmp_path / "example.py"
    script.write_text(code)
    monkeypatch.chdir(tmp_path)
    drop = runpy.run_path(str(script))["drop"]
    assert drop.image_count == 160
    assert abs(drop.drop_points) < 5
