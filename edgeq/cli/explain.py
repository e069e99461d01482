"""``edgeq explain``: error per layer, ranges, and what was kept in float and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import OutputFlags, command

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["explain"]

_SHOWN = 20


@command
def explain(
    *,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    show_all: Annotated[bool, typer.Option("--all", help="Every op, not only the noisiest layers.")] = False,
    output: OutputFlags,
) -> None:
    """Noise and ranges per layer; what stayed in float, and why."""
    from edgeq.bundle.read import open_bundle
    from edgeq.cli.console import Console
    from edgeq.errors import BundleError
    from edgeq.report.numbers import list_of_maps
    from edgeq.types import ModelPrecision

    console = Console(output)
    opened = open_bundle(bundle)
    report = opened.report("quantization")
    if report is None:
        precision = opened.manifest.plan.get("precision")
        exact = precision in [entry.value for entry in ModelPrecision if not entry.calibrated]
        raise BundleError(
            f"{bundle} has no reports/quantization.json, so there is nothing to explain",
            fix=f"--precision {precision} takes no calibration; explain is for bundles that were calibrated"
            if exact
            else "make the bundle anew with 'edgeq quantize'",
        )
    layers = sorted(list_of_maps(report.get("layers")), key=_noise, reverse=True)
    console.show(*_summary(report, layers))
    measured = [layer for layer in layers if layer.get("noise") is not None]
    shown = layers if show_all else measured[:_SHOWN]
    console.show(_layer_table(shown))
    rest = len(layers) - len(shown)
    if rest:
        console.show(f"and {rest} more ops: --all lists them")
    console.emit({**report, "layers": layers})


def _noise(layer: Mapping[str, Any]) -> float:
    value = layer.get("noise")
    return float(value) if isinstance(value, (int, float)) else -1.0


def _summary(report: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the plan came to, in sentences."""
    from edgeq.report.numbers import number, plain

    reasons: dict[str, int] = {}
    for layer in layers:
        if layer.get("precision") == "float":
            reason = plain(layer.get("reason")).partition(":")[0]
            reasons[reason] = reasons.get(reason, 0) + 1
    lines = [f"{report.get('int8_op_count', '-')} ops in INT8, {report.get('float_op_count', '-')} in float"]
    lines += [f"  {count} x {reason}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1])]
    predicted = report.get("predicted_drop_points")
    if predicted is not None:
        lines.append(f"drop predicted on calibration images: {number(predicted)} points")
    return lines


def _layer_table(layers: Sequence[Mapping[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from edgeq.report.numbers import interval, number, plain

    table = Table(
        title="Layers, the noisiest first", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for head, justify in (
        ("layer", "left"),
        ("op", "left"),
        ("in", "left"),
        ("noise", "right"),
        ("range", "right"),
    ):
        table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_column("method or reason", overflow="fold")
    for layer in layers:
        is_float = layer.get("precision") == "float"
        why = layer.get("reason") if is_float else layer.get("range_method")
        cells = (
            plain(layer.get("node")),
            plain(layer.get("op_type")),
            plain(layer.get("precision")),
            number(layer.get("noise"), 5),
            interval(layer.get("float_range")),
            plain(why),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table
