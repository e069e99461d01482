"""``edgeq export``: a bundle's model with non-maximum suppression inside, as an app takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.flags import OutputFlags, command

__all__ = ["export"]


@command
def export(
    *,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="What to write: app.mlpackage.")],
    confidence: Annotated[
        float, typer.Option("--confidence", min=0.0, max=1.0, help="Least score where the app gives none.")
    ] = 0.25,
    iou: Annotated[
        float, typer.Option("--iou", min=0.0, max=1.0, help="NMS drops above, where the app gives none.")
    ] = 0.45,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    output: OutputFlags,
) -> None:
    """A Core ML detector with NMS inside, for apps.

    With class labels, and thresholds as inputs, as Vision takes it. A box has its best class alone:
    'evaluate' counts every class of a box, which is up to 2 points of mAP more.
    """
    from edgeq.bundle.read import open_bundle
    from edgeq.cli.console import Console
    from edgeq.errors import InputError
    from edgeq.files import check_free
    from edgeq.runtimes import load_runtime, runs_here
    from edgeq.runtimes.optional import WithSuppression
    from edgeq.types import PostProcess

    console = Console(output)
    opened = open_bundle(bundle)
    manifest = opened.manifest
    runtime = load_runtime(manifest.runtime, installed=False)
    if not isinstance(runtime, WithSuppression):
        raise InputError(
            f"{runtime.name} has no form with NMS inside", fix="a Core ML bundle has: --target iphone-a17"
        )
    if out.suffix not in runtime.artifact_suffixes:
        raise InputError(f"{out} does not end in {' or '.join(runtime.artifact_suffixes)}")
    check_free(out, force=force, folder=True)
    source = opened.qdq_path or opened.reference_path
    if source is None:
        raise InputError(f"{bundle} holds no ONNX model", fix="make it anew with 'edgeq quantize'")
    artifact = runtime.with_suppression(
        source.read_bytes(),
        out,
        spec=manifest.input,
        head=manifest.head,
        post=PostProcess(confidence=confidence, iou=iou),
    )
    if not runs_here(runtime):
        console.note(f"note: {runtime.name} does not run on this machine: the model is written, not tried")
    console.show(f"{out}: {artifact.size_mb:.2f} MB, {manifest.head.class_count} classes")
    console.emit(
        {
            "artifact": str(out),
            "size_mb": artifact.size_mb,
            "confidence": confidence,
            "iou": iou,
            "warnings": console.warnings,
        }
    )
