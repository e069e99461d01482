"""ONNX Runtime sessions for calibration and simulation on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import onnxruntime as ort

from edgeq.cores import core_count
from edgeq.errors import ModelError
from edgeq.runtimes.onnxruntime.native import KEEP_FLOAT

__all__ = ["cpu_session", "in_parallel"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_parallel(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Results in the order of the items, one thread a core.

    Several inferences of one thread each use the cores far better than one of several threads: no layer
    has to wait for its slowest part.
    """
    with ThreadPoolExecutor(max_workers=core_count()) as pool:
        pending = [pool.submit(function, item) for item in items]
        try:
            for future in pending:
                yield future.result()
        finally:
            for future in pending:
                future.cancel()


def cpu_session(
    data: bytes, *, threads: int = 1, keep_memory: bool = True, blocked: bool = True
) -> ort.InferenceSession:
    """Session on the CPU, with idle threads that sleep: calibration shares its cores.

    Args:
        data: serialised ONNX model.
        threads: inside one inference.
        keep_memory: hold on to freed tensors for the next inference: faster, but not where many
            sessions live side by side.
        blocked: let float convolutions use their blocked layout; not where every tensor is an output and
            would have to be brought back from it.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not blocked:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # As the runtime's own sessions: what the plan keeps in float stays float.
    options.add_session_config_entry(*KEEP_FLOAT)
    options.enable_cpu_mem_arena = keep_memory
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"ONNX Runtime cannot load the graph: {reason}") from error
