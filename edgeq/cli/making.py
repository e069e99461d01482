"""The work of ``quantize`` behind its checks: quantise, lower, audit, measure, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.api import calibration_set
from edgeq.bundle.manifest import CalibrationList, FileRole
from edgeq.bundle.pack import BundleContents, ContentFile, calibration_list, source_model, write_bundle
from edgeq.bundle.read import Bundle
from edgeq.cli.accuracy import Accuracy, measure_accuracy
from edgeq.cli.audit import audit_json, disagreements, reasons_of
from edgeq.cli.calibration import Images
from edgeq.cli.console import Console
from edgeq.cli.keeping import keep_reports
from edgeq.cli.measured import measured_from
from edgeq.cli.order import Order
from edgeq.cli.subject import Specs, Subject
from edgeq.data.calibration import CalibrationCheck
from edgeq.data.images import file_digest
from edgeq.errors import UnavailableError
from edgeq.gate import Budget, GateReport, check, merge
from edgeq.machine import tool_versions
from edgeq.model.source import FloatModel
from edgeq.quantize.outcome import Quantized
from edgeq.quantize.pipeline import default_cache_folder, quantize
from edgeq.runtimes import runs_here, simulation_of
from edgeq.runtimes.base import Artifact, AuditReport, LowerOptions, SessionOptions
from edgeq.types import Dataset, ModelPrecision, Task

__all__ = ["Made", "convert", "make"]


@dataclass(frozen=True)
class Made:
    """A bundle and what is known of it."""

    bundle: Bundle
    quantized: Quantized | None
    """None: a precision without calibration."""
    audit: AuditReport
    accuracy: Accuracy | None
    gate: GateReport | None
    float_size_mb: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``quantize --json``; layers are in the bundle's reports."""
        quantization = None if self.quantized is None else self.quantized.to_json()
        if quantization is not None:
            quantization.pop("layers", None)
        audit = audit_json(self.audit)
        audit.pop("layers", None)
        manifest = self.bundle.manifest
        return {
            "bundle": str(self.bundle.folder),
            "target": manifest.target,
            "runtime": manifest.runtime,
            "precision": manifest.plan.get("precision"),
            "notes": list(self.notes),
            "size_mb": self.bundle.artifact_size_mb,
            "float_size_mb": self.float_size_mb,
            "calibration_image_count": len(manifest.calibration.images) if manifest.calibration else 0,
            "quantization": quantization,
            "audit": audit,
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "gate": None if self.gate is None else self.gate.to_json(),
        }


def make(
    order: Order, model: FloatModel, images: Images, check_: CalibrationCheck, work: Path, console: Console
) -> Made:
    """The bundle, written.

    Args:
        order: what to do.
        model: the float model; it lies in ``work`` as float.onnx too.
        images: opened sets.
        check_: the usable calibration images.
        work: temporary folder.
        console: progress and warnings.

    Raises:
        EdgeqError: as the parts do; nothing is left behind.
    """
    quantized = _quantize(order, model, images, check_, console)
    layers = {str(layer["node"]): layer for layer in quantized.to_json()["layers"]}
    listed = [(sample.key, file_digest(sample.path)) for sample in check_.samples]
    return _finish(
        order, model, work, console,
        evaluation=images.evaluation,
        graph=quantized.qdq,
        quantized=quantized,
        layers=layers,
        calibration=calibration_list(images.calibration.origin, listed),
    )  # fmt: skip


def convert(
    order: Order, model: FloatModel, evaluation: Dataset | None, work: Path, console: Console
) -> Made:
    """The bundle of a precision that takes no calibration, written.

    Args:
        order: what to do.
        model: the float model; it lies in ``work`` as float.onnx too.
        evaluation: labelled images to measure the drop on; None: it is not measured.
        work: temporary folder.
        console: progress and warnings.

    Raises:
        EdgeqError: as the parts do; nothing is left behind.
    """
    return _finish(
        order, model, work, console,
        evaluation=evaluation, graph=model.onnx_bytes, quantized=None, layers={}, calibration=None,
    )  # fmt: skip


def _finish(
    order: Order,
    model: FloatModel,
    work: Path,
    console: Console,
    *,
    evaluation: Dataset | None,
    graph: bytes,
    quantized: Quantized | None,
    layers: Mapping[str, Mapping[str, Any]],
    calibration: CalibrationList | None,
) -> Made:
    """Lower, audit, measure and write."""
    artifact = order.runtime.lower(graph, work, options=_lower_options(order, model))
    options = SessionOptions(threads=order.target.threads, compute_capability=order.target.compute_capability)
    # One after the other: coremltools builds and reads programs in a context of the whole process.
    float_artifact = _float_artifact(order, model, work)
    specs = _artifact_specs(order, model, artifact)
    audit = order.runtime.audit(artifact.path, options=options, reasons=reasons_of(layers))
    for text in disagreements(audit, layers):
        console.warn(text)
    accuracy = _measure(order, model, evaluation, artifact, quantized, work, console)
    gate = None
    budget = merge(Budget(), order.budget, task=model.head.task)
    if not budget.empty and accuracy is not None:
        gate = check(budget, measured_from(accuracy.to_json(), None, size_mb=accuracy.size_mb))
    reports: dict[str, Any] = {"audit": audit_json(audit)}
    reports |= {} if quantized is None else {"quantization": quantized.to_json()}
    reports |= {} if accuracy is None else {"accuracy": accuracy.to_json()}
    reports |= {} if gate is None else {"gate": gate.to_json()}
    recipe = order.recipe if quantized is None else quantized.recipe
    contents = BundleContents(
        name=order.source.stem,
        target=order.target.name,
        runtime=order.runtime.name,
        artifact=artifact.path.name,
        files=_files(model, quantized, artifact, float_artifact, work),
        recipe_toml=recipe.to_toml(),
        source=source_model(order.source),
        calibration=calibration,
        input=specs.input,
        head=specs.head,
        postprocess=order.post if model.head.task is Task.DETECT else None,
        versions={name: version for name, version in tool_versions().items() if name != "edgeq"},
        plan={"precision": order.precision.value, **_plan_summary(quantized)},
        reports=reports,
    )
    bundle = write_bundle(order.folder, contents, force=order.force)
    return Made(
        bundle=keep_reports(bundle, {}, console) or bundle,
        quantized=quantized,
        audit=audit,
        accuracy=accuracy,
        gate=gate,
        float_size_mb=len(model.onnx_bytes) / 1e6,
        notes=model.notes,
    )


def _lower_options(order: Order, model: FloatModel) -> LowerOptions:
    return LowerOptions(
        float16_weights=order.precision is ModelPrecision.FLOAT16,
        integer_io=order.integer_io,
        dynamic_range=order.precision is ModelPrecision.DYNAMIC,
        int8_weights=order.precision is ModelPrecision.INT8_WEIGHTS,
        input=model.input,
        labels=model.head.class_names,
    )


def _artifact_specs(order: Order, model: FloatModel, artifact: Artifact) -> Specs:
    """The float model's specs in the artifact's own layout and names."""
    specs = Specs(model.input, model.head)
    if getattr(order.runtime, "keeps_interface", False):
        return specs
    try:
        session = order.runtime.open_session(artifact.path, options=SessionOptions())
    except UnavailableError:
        # Made on a machine that cannot run it: what the float model takes is the best that is known.
        return specs
    return specs.fitted(session)


def _quantize(
    order: Order, model: FloatModel, images: Images, check_: CalibrationCheck, console: Console
) -> Quantized:
    calibration = calibration_set(images.calibration, check_)
    with console.progress() as progress:
        return quantize(
            model,
            calibration,
            order.runtime.scheme(order.target),
            order.recipe,
            cache_folder=default_cache_folder() if order.cache else None,
            progress=progress,
        )


def _measure(
    order: Order,
    model: FloatModel,
    evaluation: Dataset | None,
    artifact: Artifact,
    quantized: Quantized | None,
    work: Path,
    console: Console,
) -> Accuracy | None:
    if not order.images.measured or evaluation is None:
        return None
    simulated = None
    if quantized is not None and not runs_here(order.runtime):
        simulated = work / "simulated.qdq.onnx"
        simulated.write_bytes(simulation_of(order.runtime, quantized.qdq))
    subject = Subject(
        name=order.source.stem,
        artifact=artifact.path,
        size_mb=artifact.size_mb,
        runtime=order.runtime,
        bundle=None,
        reference=work / "float.onnx",
        float_artifact=None,
        specs=Specs(model.input, model.head),
        label=order.precision.value,
        simulated=simulated,
    )
    return measure_accuracy(subject, evaluation, post=order.post, console=console)


def _float_artifact(order: Order, model: FloatModel, work: Path) -> Artifact | None:
    """The float model in the runtime's own form; None where it loads the ONNX model itself."""
    if ".onnx" in order.runtime.artifact_suffixes:
        return None
    return order.runtime.lower(
        model.onnx_bytes,
        work,
        options=LowerOptions(
            name="float", default_float=True, input=model.input, labels=model.head.class_names
        ),
    )


def _files(
    model: FloatModel,
    quantized: Quantized | None,
    artifact: Artifact,
    float_artifact: Artifact | None,
    work: Path,
) -> tuple[ContentFile, ...]:
    """Artifact and reference, each in the runtime's form and as ONNX."""

    def inside(path: Path) -> str:
        return path.relative_to(work).as_posix()

    files = [ContentFile(inside(path), FileRole.ARTIFACT, path) for path in artifact.files]
    files.append(ContentFile("reference/float.onnx", FileRole.REFERENCE, model.onnx_bytes))
    if float_artifact is not None:
        if quantized is not None:
            files.append(ContentFile("model.qdq.onnx", FileRole.QDQ, quantized.qdq))
        files += [
            ContentFile(f"reference/{inside(path)}", FileRole.REFERENCE, path)
            for path in float_artifact.files
        ]
    return tuple(files)


def _plan_summary(quantized: Quantized | None) -> dict[str, Any]:
    """Counts, and the layers in float with their reasons; empty without a plan."""
    if quantized is None:
        return {}
    return {
        "int8_op_count": len(quantized.plan.int8_ops),
        "float_op_count": len(quantized.plan.float_ops),
        "float_ops": [
            {"node": op.name, "op": op.op_type, "reason": op.reason} for op in quantized.plan.float_ops
        ],
        "predicted_drop_points": quantized.predicted_drop_points,
    }
