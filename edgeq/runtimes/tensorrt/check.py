"""The audit on a machine without TensorRT: what the rules say, and what TensorRT-RTX builds where it is here.

Neither is a measurement of the device. The report says which of the two it is in ``details["verified"]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeq.errors import EdgeqError, UnavailableError
from edgeq.runtimes.base import AuditReport, LayerAudit, LayerPrecision, LintFinding, SessionOptions
from edgeq.runtimes.tensorrt.conformance import INSTALL, Conformance, Refusal, check_available, conformance
from edgeq.runtimes.tensorrt.findings import Finding, Severity
from edgeq.runtimes.tensorrt.layers import Wanted, audit_layers
from edgeq.runtimes.tensorrt.lint import lint, read_model, wanted_layers

__all__ = ["check"]

_DEFAULT_CAPABILITY = "8.6"
_RULES_ONLY = f"by the linter's rules alone: nothing was built; a build on this machine: {INSTALL}"


def check(
    artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
) -> AuditReport:
    """Lint, and build with TensorRT-RTX where that is installed.

    Args:
        artifact: QDQ or float ONNX.
        options: ``compute_capability`` of the target; None: that of an Ampere GPU.
        reasons: node name -> why the plan keeps it in float.

    Raises:
        ModelError: not an ONNX model.
        UnavailableError: a DLA core is asked for, of which nothing here tells.
    """
    model = read_model(artifact)
    if options.dla_core is not None:
        raise UnavailableError(
            "what runs on the DLA only a device with one tells", fix="--on ssh://DEVICE, or leave the DLA out"
        )
    findings = lint(model)
    wanted = wanted_layers(model, findings)
    why = reasons or {}
    refused = any(entry.severity is Severity.ERROR for entry in findings)
    if refused or not check_available():
        # What the rules refuse has crashed the library, so it is not even tried.
        verified = "by the linter's rules alone: the model is not valid" if refused else _RULES_ONLY
        return _report(_predicted(wanted, why, refused=refused), findings, {"verified": verified})
    try:
        built = conformance(artifact, options.compute_capability or _DEFAULT_CAPABILITY)
    except EdgeqError as error:
        # A crash or a time limit of the check is no fault of the model's.
        verified = f"by the linter's rules alone: {error.message}"
        return _report(_predicted(wanted, why, refused=False), findings, {"verified": verified})
    if built.refusals:
        found = [_refusal(entry, built.version) for entry in built.refusals]
        return _report(_predicted(wanted, why, refused=True), [*found, *findings], _details(built))
    return _report(audit_layers(built.layers, wanted, why), findings, _details(built))


def _refusal(entry: Refusal, version: str) -> Finding:
    return Finding(
        "refused",
        Severity.ERROR,
        entry.node,
        f"TensorRT-RTX {version} refuses the model: {entry.message}",
        "the linter knows no rule for this: please report the model",
    )


def _details(built: Conformance) -> dict[str, str]:
    same = built.built_for == built.stands_for
    return {
        "verified": f"conformance: built by TensorRT-RTX {built.version}, not by the device's TensorRT; "
        "no latency",
        "version": f"TensorRT-RTX {built.version}",
        "compute_capability": built.built_for if same else f"{built.built_for} for {built.stands_for}",
    }


def _predicted(wanted: Sequence[Wanted], reasons: Mapping[str, str], *, refused: bool) -> list[LayerAudit]:
    """Layers as the rules foresee them."""
    found = []
    for entry in wanted:
        why = reasons.get(entry.name) or entry.why_float
        precision = LayerPrecision.FLOAT if why else LayerPrecision.INT8
        if refused and not why:
            precision, why = LayerPrecision.OTHER, "TensorRT refuses the model"
        found.append(LayerAudit(entry.name, entry.op, precision, "not built", why))
    return found


def _report(
    layers: Sequence[LayerAudit], findings: Sequence[Finding], details: Mapping[str, str]
) -> AuditReport:
    listed = tuple(
        LintFinding(entry.rule, entry.severity.value, entry.node, entry.message, entry.fix)
        for entry in findings
    )
    return AuditReport("tensorrt", tuple(layers), details, findings=listed)
