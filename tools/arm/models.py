"""One model on this machine and as aarch64 code: its outputs, and what an inference costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.arm.guest import END, START
from tools.arm.instructions import count_instructions
from tools.arm.user_mode import PYTHON, ArmProgramError, run_on_arm

_GUEST = Path(__file__).with_name("guest.py")
_ROOT = _GUEST.parents[2]
_INPUTS, _OUTPUTS = "inputs.npy", "outputs.npz"

Outputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ModelRun:
    """A model's answers."""

    outputs: tuple[Outputs, ...]
    """By name, one entry per input."""
    details: Mapping[str, str]
    """The session's: runtime version, delegate, threads."""


def run_model(
    model: Path, inputs: npt.NDArray[Any], *, cpu: str | None, files: Sequence[Path] = ()
) -> ModelRun:
    """Outputs of an artifact that one of edgeq's runtimes loads.

    Args:
        model: the artifact.
        inputs: (n, ...), each of the model's own shape.
        cpu: emulated, one of :data:`tools.arm.cpu.CPUS`; None: this machine.
        files: what the artifact consists of besides, in the same folder.

    Raises:
        ArmProgramError: it cannot be loaded or run.
        UnavailableError: the ARM environment is not there.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-arm-model-") as name:
        folder = Path(name)
        command = _prepare(folder, model, inputs, files=files)
        said = (
            _run_here(folder, command)
            if cpu is None
            else run_on_arm([PYTHON, *command], cpu=cpu, folder=folder).stdout
        )
        with np.load(folder / _OUTPUTS) as saved:
            outputs = tuple(_of_input(saved, number) for number in range(len(inputs)))
    return ModelRun(outputs, json.loads(said.splitlines()[-1]))


def count_model(model: Path, image: npt.NDArray[Any], *, cpu: str, runs: int = 2) -> tuple[int, ...]:
    """Instructions of each of `runs` inferences after a first one, everything of the session included.

    Raises:
        ArmProgramError: it cannot be loaded or run.
        UnavailableError: the ARM environment, qemu or a compiler is not there.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-arm-count-") as name:
        folder = Path(name)
        command = [PYTHON, *_prepare(folder, model, image[None]), str(runs)]
        marks = count_instructions(command, cpu=cpu, folder=folder)
    starts = [count for label, count in marks if label == START]
    ends = [count for label, count in marks if label == END]
    return tuple(end - start for start, end in zip(starts, ends, strict=True))


def _prepare(folder: Path, model: Path, inputs: npt.NDArray[Any], *, files: Sequence[Path] = ()) -> list[str]:
    """Put the program and its files into `folder`; give the program's arguments, relative to it."""
    for file in (_GUEST, model, *files):
        shutil.copyfile(file, folder / file.name)
    np.save(folder / _INPUTS, inputs)
    return [_GUEST.name, model.name, _INPUTS, _OUTPUTS]


def _run_here(folder: Path, command: list[str]) -> str:
    # In a process of its own, as on ARM; PYTHONPATH as there, so that both run this checkout.
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ArmProgramError(f"{' '.join(command)} on this machine:\n{done.stderr[-800:]}")
    return done.stdout


def _of_input(saved: Mapping[str, npt.NDArray[Any]], number: int) -> Outputs:
    prefix = f"{number}/"
    return {key.removeprefix(prefix): saved[key] for key in saved if key.startswith(prefix)}
