"""ONNX Runtime sessions for calibration and simulation on the host."""

from __future__ import annotations

import os

import onnxruntime as ort

from edgeq.errors import ModelError
from edgeq.runtimes.onnxruntime.session import KEEP_FLOAT

__all__ = ["core_count", "cpu_session"]


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_session(data: bytes, *, threads: int | None = None, keep_memory: bool = True) -> ort.InferenceSession:
    """Session on the CPU, with idle threads that sleep: calibration shares its cores.

    Args:
        data: serialised ONNX model.
        threads: inside one inference; None: all cores.
        keep_memory: hold on to freed tensors for the next inference: faster, but not where many
            sessions live side by side.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or core_count()
    # As the runtime's own sessions: what the plan keeps in float stays float.
    options.add_session_config_entry(*KEEP_FLOAT)
    options.enable_cpu_mem_arena = keep_memory
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"ONNX Runtime cannot load the graph: {reason}") from error
