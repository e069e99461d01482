"""Runs a model on saved inputs, with edgeq's own session: here or, as an aarch64 program, under qemu.

usage: guest.py MODEL INPUTS.npy OUTPUTS.npz [MARKED_RUNS]

INPUTS: float32 (n, ...): n inputs of the model's own shape. OUTPUTS: one array per output and input, called
NUMBER/NAME. Prints the session's details as JSON. MARKED_RUNS: that many more inferences of the first input,
each between the marks START and END, which count_instructions.c sees.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.runtimes import runtime_for
from edgeq.runtimes.base import SessionOptions

MARK = 0o100000
"""``umask`` with this bit set is seen by count_instructions.c; the kernel ignores the bit."""
START, END = 1, 2


def main(model: str, inputs: str, outputs: str, marked_runs: str = "0") -> None:
    """Infer every input, write the outputs, then do the marked runs."""
    session = runtime_for(Path(model)).open_session(Path(model), options=SessionOptions(threads=1))
    images = np.load(inputs)
    results: dict[str, Any] = {}
    for number, image in enumerate(images):
        for name, value in session.infer(image).items():
            results[f"{number}/{name}"] = value
    np.savez(outputs, **results)
    for _ in range(int(marked_runs)):
        os.umask(MARK | START)
        session.infer(images[0])
        os.umask(MARK | END)
    sys.stdout.write(json.dumps(dict(session.details)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
