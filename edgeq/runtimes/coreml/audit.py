"""Which layers the package holds in INT8, and on a Mac which device Core ML plans each operation for.

The program's own types tell which convolution reads rounded activations and stored integers. Whether a
device then multiplies integers is Core ML's affair and is told by nothing: its compute plan names the
device of each operation (Neural Engine, GPU, CPU), not the arithmetic. Not measured: the compute plan part
is written against coremltools' documented ``MLComputePlan`` and tested with a stand-in for it.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError
from edgeq.runtimes.base import AuditReport, LayerAudit, LayerPrecision, SessionOptions
from edgeq.runtimes.coreml.interpret.program import Operation, Program, Reference, load_program
from edgeq.runtimes.coreml.native import import_coremltools, predicts_here
from edgeq.runtimes.coreml.package import METADATA_NAME
from edgeq.runtimes.coreml.session import UNITS, compute_units

__all__ = ["audit", "planned_devices"]

_PRODUCTS = {"conv": "Conv", "conv_transpose": "ConvTranspose", "linear": "Gemm", "matmul": "MatMul"}
_WEIGHTS = {"conv": "weight", "conv_transpose": "weight", "linear": "weight", "matmul": "y"}
_DEVICES = {
    "MLNeuralEngineComputeDevice": "Neural Engine", "MLGPUComputeDevice": "GPU", "MLCPUComputeDevice": "CPU",
}  # fmt: skip
_UNKNOWN = "device unknown"


def audit(
    artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
) -> AuditReport:
    """Every operation of the program with its precision and, on a Mac, its planned device.

    Args:
        artifact: an ``.mlpackage`` folder.
        options: the compute units it will be run on.
        reasons: source node -> why the plan keeps it in float.

    Raises:
        ModelError: it is no mlprogram.
        UnavailableError: coremltools is not installed.
    """
    units = compute_units(options)
    program = load_program(artifact)
    devices, unknown = _devices(artifact, units)
    makers = {name: operation for operation in program.operations for name in operation.outputs}
    layers = tuple(
        _layer(operation, program, makers, devices, reasons or {}) for operation in program.operations
    )
    counts = Counter(devices.values())
    details = {
        "version": str(import_coremltools().__version__),
        "compute_units": units,
        "devices": ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "not known here",
        "told_by": "the saved program's types" + (" and Core ML's compute plan" if devices else ""),
    }
    return AuditReport("coreml", layers, details, _remarks(layers, devices, unknown))


def _devices(artifact: Path, units: str) -> tuple[dict[str, str], str]:
    """(operation's output -> device, why that is not known)."""
    if not predicts_here():
        return {}, "what each operation runs on is known on a Mac only"
    try:
        return planned_devices(artifact, units), "Core ML tells no operation's device"
    except ModelError as error:
        return {}, f"{error.message}; {error.fix}"


def planned_devices(artifact: Path, units: str) -> dict[str, str]:
    """Operation's output -> device that Core ML prefers for it; macOS 14.4 or later.

    Raises:
        ModelError: Core ML gives no plan, as before macOS 14.4, or cannot load the package.
    """
    tools = import_coremltools()
    from coremltools.models.compute_plan import MLComputePlan

    chosen = getattr(tools.ComputeUnit, UNITS[units])
    try:
        model = tools.models.MLModel(str(artifact), compute_units=chosen)
        plan = MLComputePlan.load_from_path(path=model.get_compiled_model_path(), compute_units=chosen)
    except Exception as error:  # RuntimeError, ValueError and plain Exceptions of coremltools'
        raise ModelError(
            f"Core ML gives no compute plan: {error}", fix="compute plans need macOS 14.4 or later"
        ) from error
    structure = plan.model_structure.program
    if structure is None:
        return {}
    found: dict[str, str] = {}
    for operation in structure.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None:  # constants have none
            kind = type(usage.preferred_compute_device).__name__
            found.update({output.name: _DEVICES.get(kind, kind) for output in operation.outputs})
    return found


def _layer(
    operation: Operation,
    program: Program,
    makers: Mapping[str, Operation],
    devices: Mapping[str, str],
    reasons: Mapping[str, str],
) -> LayerAudit:
    device = devices.get(operation.outputs[0], _UNKNOWN)
    kernel = f"{operation.kind} {operation.dtypes[0]}, {device}"
    if operation.kind not in _PRODUCTS:
        rounded = operation.dtypes[0] in ("int8", "uint8")
        computed = operation.dtypes[0] in ("fp16", "fp32") and operation.kind != "dequantize"
        precision = LayerPrecision.INT8 if rounded else LayerPrecision.OTHER
        return LayerAudit(
            operation.name, operation.kind, LayerPrecision.FLOAT if computed else precision, kernel
        )
    name, op = _source(program, operation)
    precision, why = _product(operation, program, makers)
    if precision is not LayerPrecision.INT8 and name in reasons:
        why = reasons[name]
    return LayerAudit(name, op, precision, kernel, why)


def _source(program: Program, operation: Operation) -> tuple[str, str]:
    """Node and op that a product comes from, where the package tells."""
    name = operation.outputs[0]
    # Else it is a layer whose name MIL takes as it is, or of a package from elsewhere.
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        name = json.loads(program.metadata.get(METADATA_NAME, "{}"))["layers"][name]
    return str(name), _PRODUCTS[operation.kind]


def _product(
    operation: Operation, program: Program, makers: Mapping[str, Operation]
) -> tuple[LayerPrecision, str]:
    """Precision of a convolution or matrix product, and why it is not INT8."""
    weight = _name(operation.arguments.get(_WEIGHTS[operation.kind]))
    stored = weight in program.integer_weights or _restored(weight, makers)
    rounded = _restored(_name(operation.arguments.get("x")), makers)
    if stored and rounded:
        return LayerPrecision.INT8, ""
    if stored:
        return LayerPrecision.OTHER, "its weights are stored in INT8, its input is not rounded"
    return LayerPrecision.FLOAT, "not quantised in the model" if not rounded else "its weights are float"


def _restored(name: str, makers: Mapping[str, Operation]) -> bool:
    return name in makers and makers[name].kind == "dequantize"


def _name(value: Any) -> str:
    return value.name if isinstance(value, Reference) else ""


def _remarks(layers: tuple[LayerAudit, ...], devices: Mapping[str, str], unknown: str) -> tuple[str, ...]:
    remarks = []
    if not devices:
        remarks.append(f"{unknown}: this is what the package asks for")
    elif any(layer.precision is LayerPrecision.INT8 for layer in layers):
        away = sum(
            layer.precision is LayerPrecision.INT8 and layer.op in _PRODUCTS.values()
            and "Neural Engine" not in layer.kernel
            for layer in layers
        )  # fmt: skip
        if away:
            remarks.append(
                f"{away} INT8 convolutions and matrix products are planned for CPU or GPU, where restoring "
                "their inputs at every inference can make them slower than float16"
            )
    weights = sum(
        layer.precision is LayerPrecision.OTHER and "stored in INT8" in layer.reason for layer in layers
    )
    if weights:
        remarks.append(f"{weights} layers have INT8 weights only: smaller, and computed in float16")
    return tuple(remarks)
