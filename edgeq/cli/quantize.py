"""``edgeq quantize``: from a source and calibration images to a bundle whose cost is known."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import OutputFlags, PostFlags, SpecFlags, command
from edgeq.cli.precision import PrecisionFlags, check_needs, for_precision
from edgeq.cli.recipes import RecipeFlags
from edgeq.errors import BudgetError

if TYPE_CHECKING:
    from edgeq.cli.accuracy import Accuracy
    from edgeq.cli.console import Console
    from edgeq.cli.making import Made
    from edgeq.cli.order import Order
    from edgeq.gate import Budget
    from edgeq.model.source import FloatModel
    from edgeq.runtimes.base import Session
    from edgeq.types import Task

__all__ = ["quantize"]

_ROOM = 4
"""Temporary files against the source: normalised model, QDQ model, and ONNX Runtime's optimised ones."""


@command
def quantize(
    *,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="An .onnx file or an Ultralytics .pt.")],
    target: Annotated[str, typer.Option("--target", metavar="NAME|FILE", help="See 'edgeq targets'.")],
    calib: Annotated[
        Path | None,
        typer.Option("--calib", metavar="DATA", help="To calibrate on: data.yaml, .json, .csv or a folder."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Bundle to make; build/SOURCE-TARGET otherwise."),
    ] = None,
    calib_images: Annotated[
        int, typer.Option("--calib-images", min=1, metavar="N", help="Calibrate on N images, evenly spread.")
    ] = 128,
    calib_split: Annotated[str, typer.Option("--calib-split", help="Split to calibrate on.")] = "train",
    eval_data: Annotated[
        Path | None, typer.Option("--eval", metavar="DATA", help="Measure the drop on these labelled images.")
    ] = None,
    eval_split: Annotated[str, typer.Option("--eval-split", help="Split to evaluate on.")] = "val",
    max_map_drop: Annotated[
        float | None,
        typer.Option("--max-map-drop", metavar="POINTS", help="Budget: exit code 3 when missed."),
    ] = None,
    max_top1_drop: Annotated[
        float | None, typer.Option("--max-top1-drop", metavar="POINTS", help="The same for classifiers.")
    ] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep and reuse statistics.")] = True,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Calibrate on evaluation images all the same.")
    ] = False,
    skip_fit_check: Annotated[
        bool, typer.Option("--skip-fit-check", help="Do not check that the pre-processing fits the model.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check model and images, make nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier bundle.")] = False,
    precision: PrecisionFlags,
    recipe: RecipeFlags,
    post: PostFlags,
    spec: SpecFlags,
    output: OutputFlags,
) -> int:
    """Calibrate, quantise, audit, and write a bundle."""
    from edgeq.cli.extras import require_host

    require_host("quantize")
    from edgeq.cli.calibration import ImageChoice
    from edgeq.cli.console import Console
    from edgeq.cli.order import Order
    from edgeq.files import check_free
    from edgeq.gate import Budget
    from edgeq.runtimes import check_precision, load_runtime
    from edgeq.targets import load_target

    console = Console(output)
    profile = for_precision(load_target(target), precision.precision)
    runtime = load_runtime(profile.runtime)
    check_precision(runtime, precision.precision, integer_io=precision.integer_io)
    check_needs(precision.precision, calib, has_choices=recipe != RecipeFlags())
    budget = Budget(max_map_drop=max_map_drop, max_top1_drop=max_top1_drop)
    suffix = "" if precision.precision.value == "int8" else f"-{precision.precision.value}"
    folder = out or Path("build") / f"{source.stem}-{profile.name}{suffix}"
    measured = eval_data is not None or not budget.empty
    order = Order(
        source=source,
        folder=folder,
        force=force,
        target=profile,
        runtime=runtime,
        recipe=recipe.recipe_for(
            budget.drop_points, runtime.scheme(profile), all_integer=precision.integer_io
        ),
        images=ImageChoice(calib, calib_split, calib_images, eval_data, eval_split, measured, allow_overlap),
        budget=budget,
        post=post.post_process(),
        cache=cache,
        check_fit=not skip_fit_check,
        precision=precision.precision,
        integer_io=precision.integer_io,
    )
    check_free(folder, force=force)
    _check_room(source)
    return _run(order, spec, console, dry_run=dry_run)


def _check_room(source: Path) -> None:
    """Raise OutputError where temporary files will not fit: ONNX Runtime would blame the model."""
    import shutil

    from edgeq.errors import OutputError

    need_mb = _ROOM * source.stat().st_size / 1e6 if source.is_file() else 0.0
    free_mb = shutil.disk_usage(tempfile.gettempdir()).free / 1e6
    if free_mb < need_mb:
        raise OutputError(
            f"the disk is full: temporary files in {tempfile.gettempdir()} need about {need_mb:.1f} MB, "
            f"{free_mb:.1f} MB are free",
            fix="free some space, or set TMPDIR to a folder on another disk",
        )


def _run(order: Order, spec: SpecFlags, console: Console, *, dry_run: bool) -> int:
    from edgeq.cli.calibration import check_fit, check_images, open_images
    from edgeq.cli.making import make
    from edgeq.model.source import load

    started = time.perf_counter()
    console.note(f"source {order.source}")
    model = load(order.source, overrides=spec.overrides())
    for note in model.notes:
        console.note(f"  {note}")
    _check_budget_task(order.budget, model.head.task)
    if not order.precision.calibrated:
        return _convert(order, model, console, dry_run=dry_run, started=started)
    images = open_images(order.images, model, console)
    console.note(f"calibration: {len(images.calibration.samples)} images of {images.calibration.origin}")
    check = check_images(images, order.images, console)
    with tempfile.TemporaryDirectory(prefix="edgeq-") as name:
        work = Path(name)
        reference = work / "float.onnx"
        reference.write_bytes(model.onnx_bytes)
        if order.check_fit:
            check_fit(_reference_session(reference), check, model, order.post, console)
        else:
            console.warn("not checked whether the pre-processing fits the model (--skip-fit-check)")
        if dry_run:
            console.show(
                f"{len(check.samples)} images are fit to calibrate {order.source.name} on; nothing was made"
            )
            console.emit(_dry_document(order, model, len(check.samples), console))
            return 0
        made = make(order, model, images, check, work, console)
    return _tell(order, made, console, took_s=time.perf_counter() - started)


def _reference_session(reference: Path) -> Session:
    from edgeq.runtimes import load_runtime
    from edgeq.runtimes.base import SessionOptions

    return load_runtime("onnxruntime").open_session(reference, options=SessionOptions())


def _convert(order: Order, model: FloatModel, console: Console, *, dry_run: bool, started: float) -> int:
    """A bundle without calibration."""
    from edgeq.cli.calibration import open_labelled
    from edgeq.cli.making import convert

    evaluation = open_labelled(order.images, model, console)
    if dry_run:
        console.show(f"{order.source.name} can be converted; nothing was made")
        console.emit(_dry_document(order, model, 0, console))
        return 0
    with tempfile.TemporaryDirectory(prefix="edgeq-") as name:
        work = Path(name)
        (work / "float.onnx").write_bytes(model.onnx_bytes)
        made = convert(order, model, evaluation, work, console)
    return _tell(order, made, console, took_s=time.perf_counter() - started)


def _check_budget_task(budget: Budget, task: Task) -> None:
    """Raise InputError where a limit is of the other task."""
    from edgeq.errors import InputError
    from edgeq.types import Task

    wrong, right = ("top1", "map") if task is Task.DETECT else ("map", "top1")
    if getattr(budget, f"max_{wrong}_drop") is not None:
        raise InputError(
            f"--max-{wrong}-drop does not apply: the model's task is {task.value}", fix=f"--max-{right}-drop"
        )


def _dry_document(order: Order, model: FloatModel, count: int, console: Console) -> dict[str, Any]:
    return {
        "source": str(order.source),
        "target": order.target.name,
        "notes": list(model.notes),
        "calibration_image_count": count,
        "bundle": None,
        "warnings": console.warnings,
    }


def _tell(order: Order, made: Made, console: Console, *, took_s: float) -> int:
    """The result, and what to do next."""
    from edgeq.report.terminal import audit_table, gate_table

    passed = made.gate is None or made.gate.passed
    console.show(
        f"{made.bundle.folder}: {order.title} {made.bundle.artifact_size_mb:.2f} MB, "
        f"float {made.float_size_mb:.2f} MB, made in {took_s:.1f} s"
    )
    if made.quantized is not None:
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in made.quantized.timings_s.items())
        cached = " (statistics from the cache)" if made.quantized.cache_hit else ""
        console.note(f"of which {stages}{cached}")
    console.show(audit_table(made.audit, limit=12))
    if made.quantized is not None and made.quantized.predicted_drop_points is not None:
        console.show(
            f"drop predicted on calibration images: {made.quantized.predicted_drop_points:.2f} points"
            + ("" if made.accuracy is not None else " (not measured yet)")
        )
    if made.accuracy is not None:
        console.show(*made.accuracy.tables(budget_points=order.budget.drop_points))
    if made.gate is not None:
        console.show(gate_table(made.gate, title="Budget"))
    steps = _next_steps(order, made.accuracy)
    console.show("next:", *(f"  {step}" for step in steps))
    console.emit({**made.to_json(), "took_s": took_s, "warnings": console.warnings, "next": steps})
    if passed:
        return 0
    console.warn(f"the budget is missed; the bundle was written all the same: {made.bundle.folder}")
    return BudgetError.exit_code


def _next_steps(order: Order, accuracy: Accuracy | None) -> list[str]:
    """Commands that make sense now."""
    import shlex

    bundle = shlex.quote(str(order.folder))
    data = shlex.quote(str(order.images.evaluation or order.images.calib or "data.yaml"))
    limit = order.budget.drop_points
    steps = [] if accuracy is not None else [f"edgeq evaluate {bundle} --data {data}"]
    steps.append(f"edgeq bench {bundle}")
    steps += [f"edgeq explain {bundle}"] if order.precision.calibrated else []
    flag = "--max-top1-drop" if order.budget.max_top1_drop is not None else "--max-map-drop"
    steps.append(f"edgeq gate {bundle}" + ("" if limit is None else f" {flag} {limit:g}"))
    return steps
