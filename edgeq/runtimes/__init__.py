"""Runtimes by name, edgeq's own and those that other packages add, all through one door.

A package adds one with an entry point in the group ``edgeq.runtimes`` that names an object with the
members of `edgeq.runtimes.base.Runtime`.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from edgeq.runtimes.base import Runtime
    from edgeq.types import ModelPrecision

__all__ = [
    "GROUP",
    "check_precision",
    "load_runtime",
    "missing_modules",
    "runs_here",
    "runtime_for",
    "runtime_names",
    "simulation_of",
]

GROUP = "edgeq.runtimes"
_CHECKOUT = {
    "coreml": "edgeq.runtimes.coreml:RUNTIME",
    "onnxruntime": "edgeq.runtimes.onnxruntime:RUNTIME",
    "openvino": "edgeq.runtimes.openvino:RUNTIME",
    "tensorrt": "edgeq.runtimes.tensorrt:RUNTIME",
    "tflite": "edgeq.runtimes.tflite:RUNTIME",
}
"""For a checkout that was never installed, which has no entry points."""
_ENGINES = (".engine", ".plan")


def runtime_names() -> tuple[str, ...]:
    """Names of the known runtimes, installed wheel or not."""
    return tuple(sorted(_entries()))


def load_runtime(name: str, *, installed: bool = True) -> Runtime:
    """The runtime of that name.

    Args:
        name: as in a target profile.
        installed: the vendor's wheel has to be there.

    Raises:
        InputError: there is none of that name.
        UnavailableError: the vendor's wheel is not installed, or the package that adds it is broken.
    """
    entries = _entries()
    if name not in entries:
        raise InputError(
            f"this edgeq has no runtime {name!r}",
            fix=f"known: {', '.join(sorted(entries))}; a newer edgeq or a plug-in may add it",
        )
    try:
        runtime: Runtime = entries[name].load()
    except (ImportError, AttributeError) as error:
        raise UnavailableError(
            f"the runtime {name!r} cannot be loaded: {error}",
            fix=f"reinstall what adds it: {entries[name].value}",
        ) from error
    missing = missing_modules(runtime) if installed else ()
    if missing:
        raise UnavailableError(
            f"the runtime {name!r} is not installed: no module {', '.join(missing)}", fix=runtime.install
        )
    return runtime


def runtime_for(artifact: Path) -> Runtime:
    """The runtime that loads a file, by its name's ending.

    Raises:
        InputError: no runtime loads such a file.
        UnavailableError: its runtime is not installed.
    """
    suffix = artifact.suffix.lower()
    # Others take ONNX too, but only ONNX Runtime runs a plain model on any machine.
    for name in sorted(runtime_names(), key=lambda name: (name != "onnxruntime", name)):
        if suffix in load_runtime(name, installed=False).artifact_suffixes:
            return load_runtime(name)
    if suffix in _ENGINES:
        raise InputError(
            f"{artifact.name} is a TensorRT engine, which loads only where and with what it was built",
            fix="give the bundle or the .onnx that it was built from; edgeq builds the engine where it runs",
        )
    raise InputError(
        f"{artifact} is neither a bundle nor a model that a runtime loads",
        fix="give the folder that 'edgeq quantize ... -o FOLDER' made, "
        "or an .onnx, .tflite, .xml or .mlpackage",
    )


def runs_here(runtime: Runtime) -> bool:
    """Whether this machine can open sessions of a runtime, its modules being installed."""
    from edgeq.runtimes.optional import Simulated

    return not isinstance(runtime, Simulated) or runtime.runs_here()


def simulation_of(runtime: Runtime, qdq: bytes) -> bytes:
    """What ONNX Runtime computes in a runtime's place: the QDQ model, rounding as the artifact does.

    Raises:
        ModelError: it is no QDQ model.
    """
    from edgeq.runtimes.optional import SimulatedOtherwise

    return runtime.simulation(qdq) if isinstance(runtime, SimulatedOtherwise) else qdq


def check_precision(runtime: Runtime, precision: ModelPrecision, *, integer_io: bool = False) -> None:
    """Return if a runtime's artifacts can be of that precision.

    Raises:
        InputError: they cannot; names those that can.
    """
    # A plug-in from before there were several has INT8 only.
    known = [entry.value for entry in getattr(runtime, "precisions", ())] or ["int8"]
    if precision.value not in known:
        raise InputError(
            f"the runtime {runtime.name!r} has no precision {precision.value!r}",
            fix=f"--precision with one of {', '.join(known)}, or a target of another runtime",
        )
    if integer_io and not getattr(runtime, "integer_io", False):
        raise InputError(
            f"the runtime {runtime.name!r} has no integer inputs and outputs",
            fix="--io float, or a target of a runtime that has them (tflite)",
        )
    if integer_io and precision.value != "int8":
        raise InputError(
            f"--io int8 goes with --precision int8, not with {precision.value}", fix="leave --io out"
        )


def missing_modules(runtime: Runtime) -> tuple[str, ...]:
    """Which of the vendor's modules are not importable; nothing is imported to find out."""
    return tuple(name for name in runtime.requires if importlib.util.find_spec(name) is None)


def _entries() -> dict[str, EntryPoint]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    return found or {name: EntryPoint(name, value, GROUP) for name, value in _CHECKOUT.items()}
