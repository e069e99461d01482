"""Where ONNX Runtime's time goes: its own profile of some inferences. Device side."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy.typing as npt

from edgeq.errors import ModelError
from edgeq.runtimes.base import LayerTime, SessionOptions
from edgeq.runtimes.onnxruntime.native import PROVIDER, import_onnxruntime, one_line, session_options

__all__ = ["layer_times"]

_SUFFIX = "_kernel_time"
_NO_KERNEL = frozenset({"Constant"})


def layer_times(
    artifact: Path, options: SessionOptions, tensor: npt.NDArray[Any], *, runs: int
) -> tuple[LayerTime, ...]:
    """Each executed kernel in order, with the median time of ``runs`` inferences.

    Args:
        artifact: any ``.onnx`` file.
        options: as it is run.
        tensor: input.
        runs: inferences that count; one before them does not.

    Raises:
        ModelError: the model does not load or run.
        UnavailableError: onnxruntime is not installed.
    """
    ort = import_onnxruntime()
    with tempfile.TemporaryDirectory(prefix="edgeq-profile-") as folder:
        chosen = session_options(options)
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = ort.InferenceSession(str(artifact), chosen, providers=[PROVIDER])
            feed = {session.get_inputs()[0].name: tensor}
            for _ in range(runs + 1):
                session.run(None, feed)
            events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_bytes())
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelError(f"{artifact.name} cannot be profiled: {one_line(error)}") from error
    return _medians(events, runs)


def _medians(events: list[dict[str, Any]], runs: int) -> tuple[LayerTime, ...]:
    """The median of each kernel's last ``runs`` events; the one before is the warm-up."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and arguments.get("op_name", "Constant") not in _NO_KERNEL:
            by_name.setdefault(str(event["name"]).removesuffix(_SUFFIX), []).append(event)
    return tuple(
        LayerTime(
            name=name,
            op=str(found[0]["args"]["op_name"]),
            precision=_dtype(found[0]["args"]),
            kernel=str(found[0]["args"]["op_name"]),
            time_ms=median(float(event["dur"]) for event in found[-runs:]) / 1e3,
        )
        for name, found in by_name.items()
    )


def _dtype(arguments: dict[str, Any]) -> str:
    """Type of the first output, in ONNX Runtime's word."""
    outputs = arguments.get("output_type_shape") or [{}]
    return str(next(iter(outputs[0]), ""))
