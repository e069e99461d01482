"""ONNX Runtime sessions for calibration and simulation on the host."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import onnx
import onnxruntime as ort

from edgeq.errors import ModelError
from edgeq.machine import core_count
from edgeq.runtimes.onnxruntime.native import KEEP_FLOAT

__all__ = ["cpu_session", "in_parallel", "light_first", "summing_session"]

_LIGHT = frozenset({"ReduceMax", "ReduceMin", "ReorderOutput", "Reshape", "Slice"})
"""What tells of a tensor, and what brings it there from the blocked layout of convolutions."""

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
    data: bytes,
    *,
    threads: int = 1,
    keep_memory: bool = True,
    blocked: bool = True,
    integer_kernels: bool = True,
    planned: bool = True,
) -> ort.InferenceSession:
    """Session on the CPU, with idle threads that sleep: calibration shares its cores.

    Args:
        data: serialised ONNX model.
        threads: inside one inference.
        keep_memory: hold on to freed tensors for the next inference: faster, but not where many
            sessions live side by side.
        blocked: let float convolutions use their blocked layout; not where every tensor is an output and
            would have to be brought back from it.
        integer_kernels: look for INT8 layers in a QDQ model. False: every layer computes in float on rounded
            numbers, its weight restored once and for all, which is faster where layers give float anyway.
        planned: after the first inference take all memory in one piece, besides what that has taken: not
            worth it for a few inferences.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """
    options = _options(
        threads=threads, keep_memory=keep_memory, blocked=blocked, integer_kernels=integer_kernels
    )
    options.enable_mem_pattern = planned
    return _loaded(data, options)


def summing_session(data: bytes) -> ort.InferenceSession:
    """Session of one thread for a model that sums up its own tensors.

    A session of ONNX Runtime's own order leaves what only serves an output to the end, and keeps every
    tensor until then. This one loads the optimised graph once more, in an order where all that is light runs
    as soon as it can: on YOLOX-Nano that took a third of the time away and most of the memory.

    Args:
        data: serialised ONNX model.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        target = Path(folder) / "optimised.onnx"
        options = _options()
        options.optimized_model_filepath = str(target)
        _loaded(data, options)
        optimised = onnx.load(str(target))
    nodes = light_first(list(optimised.graph.node), _LIGHT)
    del optimised.graph.node[:]
    optimised.graph.node.extend(nodes)
    options = _options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    return _loaded(optimised.SerializeToString(), options)


def light_first(nodes: Sequence[onnx.NodeProto], light: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes of a graph in an order where each light one comes as soon as its inputs are there.

    Args:
        nodes: in an order in which they can run.
        light: op types.
    """
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    sources = [{makers[name] for name in node.input if name in makers} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for index, found in enumerate(sources):
        for source in found:
            readers[source].append(index)
    missing = [len(found) for found in sources]
    ready = [(node.op_type not in light, index) for index, node in enumerate(nodes) if not missing[index]]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, index = heapq.heappop(ready)
        ordered.append(nodes[index])
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, (nodes[reader].op_type not in light, reader))
    return ordered


def _options(
    *, threads: int = 1, keep_memory: bool = True, blocked: bool = True, integer_kernels: bool = True
) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not blocked:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # As the runtime's own sessions: what the plan keeps in float stays float.
    entry, passes = KEEP_FLOAT
    if not integer_kernels:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # This pass gains nothing then, and ends ONNX Runtime 1.23, the last for Python 3.10, where a clip
        # reads an input of the graph.
        passes += ";ClipQuantRewrite"
    options.add_session_config_entry(entry, passes)
    options.enable_cpu_mem_arena = keep_memory
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _loaded(data: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"ONNX Runtime cannot load the graph: {reason}") from error
