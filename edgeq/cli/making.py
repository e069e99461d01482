"""The work of ``quantize`` behind its checks: quantise, lower, audit, measure, write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.api import calibration_set
from edgeq.bundle.manifest import FileRole
from edgeq.bundle.pack import BundleContents, ContentFile, calibration_list, source_model, write_bundle
from edgeq.bundle.read import Bundle
from edgeq.cli.accuracy import Accuracy, measure_accuracy
from edgeq.cli.audit import audit_json, disagreements, reasons_of
from edgeq.cli.calibration import Images
from edgeq.cli.console import Console
from edgeq.cli.keeping import keep_reports
from edgeq.cli.machine import tool_versions
from edgeq.cli.measured import measured_from
from edgeq.cli.subject import Specs, Subject
from edgeq.data.calibration import CalibrationCheck
from edgeq.data.images import file_digest
from edgeq.gate import Budget, GateReport, check, merge
from edgeq.model.source import FloatModel
from edgeq.quantize.pipeline import Quantized, default_cache_folder, quantize
from edgeq.runtimes.base import Artifact, AuditReport, LowerOptions, SessionOptions
from edgeq.types import Task

if TYPE_CHECKING:
    from edgeq.cli.quantize import Order

__all__ = ["Made", "make"]


@dataclass(frozen=True)
class Made:
    """A bundle and what is known of it."""

    bundle: Bundle
    quantized: Quantized
    audit: AuditReport
    accuracy: Accuracy | None
    gate: GateReport | None
    float_size_mb: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``quantize --json``; layers are in the bundle's reports."""
        quantization = self.quantized.to_json()
        quantization.pop("layers", None)
        audit = audit_json(self.audit)
        audit.pop("layers", None)
        manifest = self.bundle.manifest
        return {
            "bundle": str(self.bundle.folder),
            "target": manifest.target,
            "runtime": manifest.runtime,
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
    artifact = order.runtime.lower(quantized.qdq, work, options=LowerOptions())
    float_artifact = _float_artifact(order, model, work)
    layers = {str(layer["node"]): layer for layer in quantized.to_json()["layers"]}
    options = SessionOptions(threads=order.target.threads, compute_capability=order.target.compute_capability)
    audit = order.runtime.audit(artifact.path, options=options, reasons=reasons_of(layers))
    for text in disagreements(audit, layers):
        console.warn(text)
    accuracy = _measure(order, model, images, artifact, work, console)
    gate = None
    budget = merge(Budget(), order.budget, task=model.head.task)
    if not budget.empty and accuracy is not None:
        gate = check(budget, measured_from(accuracy.to_json(), None, size_mb=accuracy.size_mb))
    reports: dict[str, Any] = {"quantization": quantized.to_json(), "audit": audit_json(audit)}
    reports |= {} if accuracy is None else {"accuracy": accuracy.to_json()}
    reports |= {} if gate is None else {"gate": gate.to_json()}
    files = _files(model, quantized, artifact, float_artifact, work)
    contents = _contents(order, model, images, check_, quantized, artifact, files, reports)
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
    order: Order, model: FloatModel, images: Images, artifact: Artifact, work: Path, console: Console
) -> Accuracy | None:
    if not order.images.measured or images.evaluation is None:
        return None
    subject = Subject(
        name=order.source.stem,
        artifact=artifact.path,
        size_mb=artifact.size_mb,
        runtime=order.runtime,
        bundle=None,
        reference=work / "float.onnx",
        float_artifact=None,
        specs=Specs(model.input, model.head),
    )
    return measure_accuracy(subject, images.evaluation, post=order.post, console=console)


def _float_artifact(order: Order, model: FloatModel, work: Path) -> Artifact | None:
    """The float model in the runtime's own form; None where it loads the ONNX model itself."""
    if ".onnx" in order.runtime.artifact_suffixes:
        return None
    return order.runtime.lower(model.onnx_bytes, work, options=LowerOptions(name="float"))


def _files(
    model: FloatModel, quantized: Quantized, artifact: Artifact, float_artifact: Artifact | None, work: Path
) -> tuple[ContentFile, ...]:
    """Artifact and reference, each in the runtime's form and as ONNX."""

    def inside(path: Path) -> str:
        return path.relative_to(work).as_posix()

    files = [ContentFile(inside(path), FileRole.ARTIFACT, path) for path in artifact.files]
    files.append(ContentFile("reference/float.onnx", FileRole.REFERENCE, model.onnx_bytes))
    if float_artifact is not None:
        files.append(ContentFile("model.qdq.onnx", FileRole.QDQ, quantized.qdq))
        files += [
            ContentFile(f"reference/{inside(path)}", FileRole.REFERENCE, path)
            for path in float_artifact.files
        ]
    return tuple(files)


def _contents(
    order: Order,
    model: FloatModel,
    images: Images,
    check_: CalibrationCheck,
    quantized: Quantized,
    artifact: Artifact,
    files: tuple[ContentFile, ...],
    reports: dict[str, Any],
) -> BundleContents:
    listed = [(sample.key, file_digest(sample.path)) for sample in check_.samples]
    return BundleContents(
        name=order.source.stem,
        target=order.target.name,
        runtime=order.runtime.name,
        artifact=artifact.path.name,
        files=files,
        recipe_toml=quantized.recipe.to_toml(),
        source=source_model(order.source),
        calibration=calibration_list(images.calibration.origin, listed),
        input=model.input,
        head=model.head,
        postprocess=order.post if model.head.task is Task.DETECT else None,
        versions={name: version for name, version in tool_versions().items() if name != "edgeq"},
        plan=_plan_summary(quantized),
        reports=reports,
    )


def _plan_summary(quantized: Quantized) -> dict[str, Any]:
    """Counts, and the layers in float with their reasons."""
    return {
        "int8_op_count": len(quantized.plan.int8_ops),
        "float_op_count": len(quantized.plan.float_ops),
        "float_ops": [
            {"node": op.name, "op": op.op_type, "reason": op.reason} for op in quantized.plan.float_ops
        ],
        "predicted_drop_points": quantized.predicted_drop_points,
    }
