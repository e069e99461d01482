"""The command line itself: imports, usage, exit codes, the shape of errors."""

import errno
import json
import subprocess
import sys
from typing import get_type_hints

import pytest

from edgeq.cli.failures import failure_of
from edgeq.cli.flags import Interrupted
from edgeq.cli.main import app
from edgeq.errors import BudgetError, UnavailableError

from .conftest import ROOT, run_edgeq

COMMANDS = ("quantize", "evaluate", "bench", "audit", "explain", "gate", "predict", "targets", "doctor")


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from edgeq.cli.main import main; main(['--help'])\n"
        "heavy = {'onnx', 'onnxruntime', 'cv2', 'numpy', 'pydantic', 'rich', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "quantize" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_and_help(command, edgeq):
    result = edgeq(command, "--help")
    assert result.code == 0
    assert "--json" in result.out


def test_commands_are_documented_in_full_in_the_list(edgeq):
    listed = edgeq().out.split("Commands:")[1]
    for command in COMMANDS:
        line = next(line for line in listed.splitlines() if line.split()[:1] == [command])
        assert not line.endswith("..."), line


def test_choices_in_the_help_are_those_of_the_vocabulary():
    from edgeq.cli.flags import SpecFlags
    from edgeq.cli.precision import PrecisionFlags
    from edgeq.cli.recipes import RecipeFlags
    from edgeq.model.presets import PRESETS
    from edgeq.quantize.recipe import RangeMethod
    from edgeq.types import ColorOrder, HeadFamily, Layout, ModelPrecision, ResizeRule

    kinds = {"head": HeadFamily, "color": ColorOrder, "resize": ResizeRule, "layout": Layout}
    others = ((RecipeFlags, {"range_method": RangeMethod}), (PrecisionFlags, {"precision": ModelPrecision}))
    for group, names in ((SpecFlags, kinds), *others):
        hints = get_type_hints(group, include_extras=True)
        for name, kind in names.items():
            assert hints[name].__metadata__[0].metavar.split("|") == [entry.value for entry in kind]
    assert all(name in SpecFlags.__annotations__["preset"] for name in PRESETS)


def test_budget_flags_are_the_budget():
    from dataclasses import fields

    from edgeq.cli.flags import BudgetFlags
    from edgeq.gate import Budget

    assert [entry.name for entry in fields(BudgetFlags)] == [entry.name for entry in fields(Budget)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no such command 'nothing'"),
        (["quantize"], "missing argument"),
        (["bench", "x", "--duration", "fast"], "is not a duration"),
        (["bench", "x", "--threads", "0"], "--threads"),
        (["quantize", "x", "--imgsz", "-3"], "is not a size in pixels"),
        (["quantize", "x", "--mean", "1,2"], "is not 1 or 3 numbers"),
        (["quantize", "x", "--std", "0"], "is not above 0"),
        (["quantize", "x", "--color", "grb"], "is none of rgb, bgr"),
    ],
)
def test_wrong_usage(arguments, message, edgeq):
    result = edgeq(*arguments)
    assert result.code == 2
    assert message in result.err
    assert "fix: edgeq" in result.err
    assert result.out == ""


def test_wrong_usage_with_json_is_one_document(edgeq):
    result = edgeq("bench", "x", "--duration", "fast", "--json")
    assert result.json["exit_code"] == result.code == 2
    assert result.json["fix"] == "edgeq bench --help"


def test_installed_command_exit_codes(tmp_path):
    (tmp_path / "no.onnx").write_text("no")
    assert run_edgeq("--version").code == 0
    assert run_edgeq("targets", "x86").code == 2
    assert run_edgeq("audit", tmp_path / "no.onnx").code == 2
    remote = run_edgeq("doctor", "--on", "ssh://127.0.0.1:1", "--json")
    assert remote.code == remote.json["exit_code"] == 4
    assert run_edgeq("evaluate", tmp_path / "m.tflite", "--data", tmp_path).code == 2
    (tmp_path / "m.tflite").write_text("x")
    assert run_edgeq("evaluate", tmp_path / "m.tflite", "--data", tmp_path).code in (2, 4)


def test_a_bug_is_told_as_one(edgeq, monkeypatch):
    monkeypatch.setattr("edgeq.targets.list_targets", lambda: 1 / 0)
    result = edgeq("targets", "--json")
    assert result.code == 1
    assert "Traceback" in result.err
    assert "please report it" in result.err
    assert result.json["exit_code"] == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BudgetError("over"), 3),
        (UnavailableError("not here"), 4),
        (Interrupted(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 2),
        (PermissionError(errno.EACCES, "no", "/tmp/x"), 1),
        (RuntimeError("bug"), 1),
    ],
)
def test_exit_codes(error, code):
    assert failure_of(error).exit_code == code


def test_full_disk_names_the_file():
    failure = failure_of(OSError(errno.ENOSPC, "No space left on device", "/tmp/x"))
    assert failure.message == "the disk is full while writing /tmp/x"
    assert not failure.bug


def test_control_characters_do_not_reach_the_terminal(edgeq):
    result = edgeq("targets", "a\x1b[31mb")
    assert "\x1b" not in result.err


def test_interrupt_in_a_command(edgeq, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeq.targets.list_targets", stop)
    result = edgeq("targets", "--json")
    assert result.code == json.loads(result.out)["exit_code"] == 130
    assert "interrupted" in result.err


def test_app_knows_every_command():
    names = {entry.callback.__name__ for entry in app.registered_commands}
    assert set(COMMANDS) <= names


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "edgeq", "--version"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "edgeq"), done.stderr
