"""The demo, as a new user runs it: everything offline, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "edgeq.cli.main", "demo", "--json", "--quiet"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_float_model_is_good_enough_to_show_a_drop(demo: tuple[Path, dict[str, Any]]) -> None:
    _, document = demo
    assert document["models"][0]["map50_95"] >= 0.6


def test_naive_int8_visibly_fails_and_edgeq_passes_its_budget(demo: tuple[Path, dict[str, Any]]) -> None:
    _, document = demo
    _, naive, ours = document["models"]
    assert naive["drop_points"] > 10 and naive["passed"] is False
    assert ours["drop_points"] <= 1.0 and ours["passed"] is True
    assert ours["size_mb"] < 0.6 * document["models"][0]["size_mb"]


def test_the_bundle_verifies_and_predicts(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, document = demo
    from edgeq.bundle.read import open_bundle
    from edgeq.resources import data_folder

    bundle = open_bundle(folder / document["bundle"])
    assert {"accuracy", "latency", "quantization", "audit", "gate"} <= set(bundle.report_names)
    image = sorted((data_folder("demo") / "images" / "eval").glob("*.jpg"))[0]
    command = [
        sys.executable,
        "-m",
        "edgeq.cli.main",
        "predict",
        str(bundle.folder),
        str(image),
        "-o",
        "out.jpg",
    ]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    assert (folder / "out.jpg").stat().st_size > 0
