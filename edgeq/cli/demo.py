"""``edgeq demo``: everything, offline, on the embedded model and images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import OutputFlags, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgeq.cli.console import Console
    from edgeq.cli.order import Order

__all__ = ["demo"]

_FLOAT, _NAIVE, _OURS = "float", "naive INT8", "edgeq INT8"
_BENCH_SECONDS = 6.0


@command
def demo(
    *,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Bundle to make.")] = Path(
        "edgeq-demo"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier bundle.")] = False,
    output: OutputFlags,
) -> int:
    """All of it on an embedded model, offline: about a minute."""
    from edgeq.cli.console import Console
    from edgeq.cli.extras import require_host
    from edgeq.errors import BudgetError
    from edgeq.files import check_free

    require_host("demo")
    # The folder is the demo's own unless the user names another.
    force = force or out == Path("edgeq-demo")
    check_free(out, force=force)
    console = Console(output)
    document = _Demo(_order(out, force=force), console).run()
    console.emit({**document, "warnings": console.warnings})
    return 0 if document["passed"] else BudgetError.exit_code


def _order(out: Path, *, force: bool) -> Order:
    """What ``edgeq quantize`` would be told."""
    import platform

    from edgeq.cli.calibration import ImageChoice
    from edgeq.cli.order import Order
    from edgeq.gate import Budget, merge
    from edgeq.quantize.recipe import Recipe
    from edgeq.resources import data_folder
    from edgeq.runtimes import load_runtime
    from edgeq.targets import load_target
    from edgeq.types import ModelPrecision, PostProcess, Task

    folder = data_folder("demo")
    arm = platform.machine().lower() in ("aarch64", "arm64")
    target = load_target("arm64-onnxruntime" if arm else "x86-onnxruntime")
    return Order(
        source=folder / "model.onnx",
        folder=out,
        force=force,
        target=target,
        runtime=load_runtime(target.runtime),
        recipe=Recipe(),
        images=ImageChoice(
            folder / "data.yaml", "train", 64, None, "val", measured=True, allow_overlap=False
        ),
        budget=merge(Budget(), target.budget, task=Task.DETECT),
        post=PostProcess(),
        cache=False,
        check_fit=True,
        precision=ModelPrecision.INT8,
        integer_io=False,
    )


class _Demo:
    """The steps of the demo, each said before it starts."""

    def __init__(self, order: Order, console: Console) -> None:
        self._order, self._console = order, console

    def run(self) -> dict[str, Any]:
        """Everything; the JSON document."""
        import tempfile
        from dataclasses import replace

        from edgeq.cli.accuracy import measure_accuracy
        from edgeq.cli.calibration import check_fit, check_images, open_images
        from edgeq.cli.keeping import keep_reports
        from edgeq.cli.latency import BenchSettings, Rival, measure_latency
        from edgeq.cli.making import make
        from edgeq.cli.naive import quantize_naively
        from edgeq.cli.opening import open_subject
        from edgeq.files import size_mb
        from edgeq.model.source import load
        from edgeq.runtimes.base import SessionOptions

        order, console = self._order, self._console
        self._say("1/5 load the model and check the images")
        model = load(order.source)
        for note in model.notes:
            console.note(f"      {note}")
        images = open_images(order.images, model, console)
        check = check_images(images, order.images, console)
        with tempfile.TemporaryDirectory(prefix="edgeq-") as name:
            work = Path(name)
            (work / "float.onnx").write_bytes(model.onnx_bytes)
            session = order.runtime.open_session(work / "float.onnx", options=SessionOptions())
            check_fit(session, check, model, order.post, console)
            self._say(
                f"2/5 quantise on {len(check.samples)} images, evaluate float and INT8 on the held-out ones"
            )
            made = make(order, model, images, check, work, console)
            self._say("3/5 quantise the usual way: ONNX Runtime's quantize_static, default settings")
            quantize_naively(order.source, work / "naive.onnx", check.samples, model.input)
            assert images.evaluation is not None  # the order asks for a measured drop
            with open_subject(order.folder, console=console) as ours:
                naive = replace(ours, name=_NAIVE, artifact=work / "naive.onnx", bundle=None)
                naive = replace(naive, size_mb=size_mb(naive.artifact))
                naive_accuracy = measure_accuracy(naive, images.evaluation, post=order.post, console=console)
                self._say(f"4/5 benchmark all three in turns, one thread, {_BENCH_SECONDS:.0f} s")
                rivals = [
                    Rival(_FLOAT, work / "float.onnx", ours.runtime),
                    Rival(_NAIVE, naive.artifact, ours.runtime),
                ]
                latency = measure_latency(
                    ours, rivals, settings=BenchSettings(1, _BENCH_SECONDS, memory=False),
                    samples=images.evaluation.samples, audit=made.audit, console=console,
                )  # fmt: skip
                self._say("5/5 hold both against the budget")
                reports = {"latency": latency.to_json()}
                keep_reports(ours.bundle, reports, console)
        assert made.accuracy is not None
        rows = _rows(order, made.accuracy.to_json(), naive_accuracy.to_json(), reports["latency"])
        console.show(*_tables(rows, made, latency.findings, order))
        return {
            "models": rows,
            "bundle": str(order.folder),
            "target": order.target.name,
            "passed": rows[-1]["passed"],
        }

    def _say(self, text: str) -> None:
        self._console.note(text)


def _rows(
    order: Order, ours: dict[str, Any], naive: dict[str, Any], latency: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row a model: accuracy, drop, size, latency and verdict."""
    from edgeq.cli.measured import measured_from
    from edgeq.gate import check

    rows = []
    for name, report, contestant in ((_FLOAT, ours, _FLOAT), (_NAIVE, naive, _NAIVE), (_OURS, ours, "int8")):
        model = next(m for m in report["models"] if (m["name"] == "float") == (name == _FLOAT))
        timed = next(entry for entry in latency["contestants"] if entry["name"] == contestant)
        row = {
            "name": name,
            **{
                key: model.get(key)
                for key in ("map50_95", "map50", "drop_points", "drop_interval_points", "size_mb")
            },
            **{key: timed.get(key) for key in ("p50_ms", "p90_ms", "p99_ms", "cpu_ms")},
            "speedup": _speedup(latency, contestant),
            "passed": None,
        }
        if name != _FLOAT:
            row["passed"] = check(order.budget, measured_from(report, None, size_mb=model["size_mb"])).passed
        rows.append(row)
    return rows


def _speedup(latency: dict[str, Any], name: str) -> float | None:
    entry = next((entry for entry in latency["speedups"] if entry["name"] == name), None)
    return None if entry is None else entry["wall"]["value"]


def _tables(rows: list[dict[str, Any]], made: Any, findings: Any, order: Order) -> list[RenderableType]:
    """The closing table, what it rests on, and what to do next."""
    from rich import box
    from rich.table import Table

    from edgeq.report.numbers import interval, number
    from edgeq.report.terminal import findings_block

    limit = order.budget.max_map_drop
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title="edgeq demo")
    for head in ("", "mAP 50-95", "drop [95 %]", "MB", "p50 ms", "speed", f"drop <= {limit:g}"):
        table.add_column(head, justify="left" if head == "" else "right")
    for row in rows:
        drop = "-"
        if row["drop_points"] is not None:
            drop = f"{number(row['drop_points'])} {interval(row['drop_interval_points'])}"
        speed = "1.00x" if row["name"] == _FLOAT else f"{number(row['speedup'])}x"
        verdict = {None: "-", True: "PASS", False: "FAIL"}[row["passed"]]
        table.add_row(
            row["name"],
            number(row["map50_95"], 3),
            drop,
            number(row["size_mb"]),
            number(row["p50_ms"]),
            speed,
            verdict,
        )
    audit = made.audit
    parts: list[RenderableType] = [
        table,
        f"{made.accuracy.int8.image_count} held-out images; {audit.int8_compute_count} of "
        f"{len(audit.compute_layers)} convolutions really run in INT8; the bundle is in {order.folder}",
    ]
    if findings:
        parts.append(findings_block([finding.to_json() for finding in findings]))
    image = next((order.source.parent / "images" / "eval").glob("*.jpg"), "IMAGE.jpg")
    parts += [
        "next, on this bundle:",
        f"  edgeq explain {order.folder}",
        f"  edgeq predict {order.folder} {image} -o out.jpg",
        "next, on your own model:",
        f"  edgeq quantize yolo11n.pt --target {order.target.name} --calib data.yaml --max-map-drop 0.5",
    ]
    return parts
