"""Does a saved program compute what the QDQ model does? Op by op, each fed with the same inputs.

Comparing final tensors of two INT8 executions says nothing: a value next to a rounding border goes either
way, and each such flip causes others. So every operation of the program gets the ONNX model's own
tensors, and only its own result is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edgeq.runtimes.coreml.interpret.program import Interpreter, Operation, Reference, load_program
from edgeq.runtimes.coreml.lower import save_program
from edgeq.runtimes.coreml.program import build
from edgeq.runtimes.coreml.source import read_source

__all__ = ["Agreement", "OpError", "compare_ops"]

Array = npt.NDArray[Any]
_PRODUCTS = frozenset({"conv", "conv_transpose", "linear", "matmul"})


@dataclass(frozen=True)
class OpError:
    """One operation against its node."""

    kind: str
    name: str
    flips: int
    """Integers that differ; quantize only."""
    count: int
    """Elements."""
    relative: float
    """Largest difference over the largest magnitude; 0 for quantize."""


@dataclass(frozen=True)
class Agreement:
    """All compared operations."""

    ops: tuple[OpError, ...]
    skipped: tuple[str, ...]
    """Operations without a counterpart in the ONNX model: casts, halves of a rewritten op."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of each kind were compared."""
        return Counter(entry.kind for entry in self.ops)

    @property
    def flips(self) -> int:
        """Quantised integers that differ, all operations together."""
        return sum(entry.flips for entry in self.ops)

    @property
    def quantised_count(self) -> int:
        """Quantised integers that were compared."""
        return sum(entry.count for entry in self.ops if entry.kind == "quantize")

    def worst(self, *, products: bool) -> float:
        """Largest relative error of convolutions and matrix products, or of all other operations."""
        return max((e.relative for e in self.ops if (e.kind in _PRODUCTS) is products), default=0.0)


def compare_ops(model: bytes, package: Path, tensor: Array, *, half: bool) -> Agreement:
    """Save the model's program and compare what was saved with the model.

    Args:
        model: serialised QDQ or float model.
        package: where the package goes; it must not exist.
        tensor: float32, one input in the model's own shape.
        half: as `edgeq.runtimes.coreml.program.build` takes it.

    Raises:
        EdgeqError: as lowering and reading do.
    """
    source = read_source(model)
    built = build(source, half=half)
    names = {**built.values, built.input: source.inputs[0]}
    save_program(source, built, package, half=half)
    interpreter = Interpreter(load_program(package))
    expected = _all_values(model, source.inputs[0], tensor)
    own: dict[str, Array] = {}
    ops: list[OpError] = []
    skipped: list[str] = []
    for operation in interpreter.program.operations:
        feeds = {
            name: expected[names[name]] if names.get(name) in expected else own[name]
            for name in _references(operation)
            if names.get(name) in expected or name in own
        }
        results = interpreter.evaluate(operation, feeds)
        for name, found in results.items():
            wanted = expected.get(names.get(name, ""))
            if wanted is None:
                own[name] = found
                skipped.append(operation.kind)
            else:
                ops.append(_error(operation, name, found, wanted))
    return Agreement(tuple(ops), tuple(skipped))


def _error(operation: Operation, name: str, found: Array, wanted: Array) -> OpError:
    if operation.kind == "quantize":
        return OpError(operation.kind, name, int(np.count_nonzero(found != wanted)), wanted.size, 0.0)
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0)
    largest = np.abs(wanted.astype(np.float64)).max(initial=0.0)
    return OpError(operation.kind, name, 0, wanted.size, float(difference / max(largest, 1e-12)))


def _references(operation: Operation) -> list[str]:
    found: list[str] = []
    for value in operation.arguments.values():
        for entry in value if isinstance(value, tuple) else (value,):
            if isinstance(entry, Reference):
                found.append(entry.name)
    return found


def _all_values(model: bytes, name: str, tensor: Array) -> dict[str, Array]:
    """Every tensor of an ONNX model for one input, nothing fused."""
    proto = onnx.load_from_string(model)
    known = {value.name for value in proto.graph.output}
    inner = [output for node in proto.graph.node for output in node.output if output and output not in known]
    proto.graph.output.extend(onnx.ValueInfoProto(name=output) for output in inner)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = [output.name for output in session.get_outputs()]
    values = dict(zip(wanted, session.run(wanted, {name: tensor}), strict=True))
    return {**values, name: tensor}
