"""The subprocess of the conformance check: build with TensorRT-RTX, print what it says as JSON lines.

Run as a program, ``python -m edgeq.runtimes.tensorrt.rtx_build MODEL SM86``, since the native library can
crash. On stdout: ``{"version": ...}``, then ``{"error": ..., "node": ..., "op": ...}`` for what the
parser or the builder refuses, or ``{"layer": LINE}`` for each layer of the engine.
"""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["main"]

_SEVERE = ("INTERNAL_ERROR", "ERROR")


def main(model: str, capability: str) -> int:
    """Build and print; 0: there is an engine, 1: there is none.

    Args:
        model: path of the ONNX model.
        capability: a name of ``tensorrt_rtx.ComputeCapability``: ``SM86``.
    """
    import tensorrt_rtx_bindings as rtx

    lines: list[tuple[str, str]] = []

    # The bindings call a logger's method from C++, so it has to be a subclass made here.
    class Logger(rtx.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            rtx.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            lines.append((str(severity).rsplit(".", 1)[-1], message))

    logger = Logger()
    _say(version=str(rtx.__version__))
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        for index in range(parser.num_errors):
            error = parser.get_error(index)
            _say(error=error.desc(), node=error.node_name(), op=error.node_operator())
        return 1
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(rtx.ComputeCapability, capability), 0)
    config.profiling_verbosity = rtx.ProfilingVerbosity.DETAILED
    start = len(lines)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        for severity, message in lines[start:]:
            if severity in _SEVERE:
                _say(error=message, node="", op="")
        return 1
    # One message holds all layers, a line each.
    for line in (line for _, message in lines[start:] for line in message.splitlines()):
        if line.startswith("Name: "):
            _say(layer=line)
    return 0


def _say(**fields: str) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
