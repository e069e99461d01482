"""ONNX Runtime's own module: how it is imported and set up, and what it says. Device side."""

from __future__ import annotations

import re
from typing import Any

from edgeq.errors import UnavailableError
from edgeq.runtimes.base import SessionOptions

__all__ = ["KEEP_FLOAT", "PROVIDER", "import_onnxruntime", "one_line", "session_options"]

PROVIDER = "CPUExecutionProvider"
KEEP_FLOAT = ("optimization.disable_specified_optimizers", "WeightBiasQuantization")
"""Session entry. That pass makes a float Conv + Relu between INT8 tensors integer, with one weight scale for
all channels, which is what the plan kept it in float to avoid."""
_FATAL_ONLY = 4
_DETAIL_CHARS = 300
_PREFIX = re.compile(r"^.*\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")


def session_options(options: SessionOptions) -> Any:
    """ONNX Runtime's options for edgeq's."""
    ort = import_onnxruntime()
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = options.threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.add_session_config_entry(*KEEP_FLOAT)
    # Its own lines on stderr would be said again by the exception.
    chosen.log_severity_level = _FATAL_ONLY
    return chosen


def import_onnxruntime() -> Any:
    """The module.

    Raises:
        UnavailableError: it is not installed, or its native library does not load here.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            f"ONNX Runtime cannot be loaded: {error}", fix="pip install onnxruntime"
        ) from error
    return onnxruntime


def one_line(error: Exception) -> str:
    """The first line of what ONNX Runtime says, without its prefix and at a readable length."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = _PREFIX.sub("", text)
    return text if len(text) <= _DETAIL_CHARS else text[:_DETAIL_CHARS] + "..."
