"""Float and INT8 on the same images: the paired drop, as a report and as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeq.cli.console import Console
from edgeq.cli.subject import Specs, Subject
from edgeq.evaluate.drop import Drop
from edgeq.evaluate.run import Evaluation, compare, evaluate, prediction_agreement
from edgeq.files import size_mb
from edgeq.machine import core_count
from edgeq.report.numbers import interval, number
from edgeq.types import Dataset, PostProcess, Task

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Accuracy", "accuracy_of", "measure_accuracy"]


@dataclass(frozen=True)
class Accuracy:
    """What was measured; without a float model there is no drop."""

    int8: Evaluation
    reference: Evaluation | None
    """Of the float model."""
    drop: Drop | None
    agreement: float | None
    """Classifiers: share of images with the same best class, 0..1."""
    name: str
    """Of the model that was judged: ``int8``, or a file's name where there is no float model."""
    size_mb: float
    float_size_mb: float | None
    simulated: str = ""
    """How the INT8 model was simulated, in words; empty: its own runtime ran it."""

    def to_json(self) -> dict[str, Any]:
        """The report ``accuracy``."""
        drop: dict[str, Any] = {} if self.drop is None else self.drop.to_json()
        shown: dict[str, Any] = {
            key: drop[key] for key in ("drop_points", "drop_interval_points") if key in drop
        }
        judged: dict[str, Any] = {
            "name": self.name,
            "size_mb": self.size_mb,
            **self.int8.metrics.to_json(),
            **shown,
        }
        models: list[dict[str, Any]] = [judged]
        if self.reference is not None:
            models.insert(
                0, {"name": "float", "size_mb": self.float_size_mb, **self.reference.metrics.to_json()}
            )
        return {
            "task": self.int8.task.value,
            "dataset": self.int8.origin,
            "split": self.int8.split,
            "image_count": self.int8.image_count,
            "post_process": None if self.int8.post is None else asdict(self.int8.post),
            "models": models,
            "drop": drop or None,
            "agreement": self.agreement,
            "simulated": self.simulated or None,
            "sessions": {
                self.name: dict(self.int8.session_details),
                **({} if self.reference is None else {"float": dict(self.reference.session_details)}),
            },
        }

    def tables(self, *, per_class: bool = False, budget_points: float | None = None) -> list[RenderableType]:
        """For the terminal."""
        from edgeq.report.terminal import accuracy_table

        report = self.to_json()
        title = f"Accuracy on {self.int8.image_count} images ({self.int8.origin}, {self.int8.split})"
        parts: list[RenderableType] = [accuracy_table(report["models"], title=title)]
        parts += self._sentences(budget_points)
        if per_class and self.int8.task is Task.DETECT:
            parts.append(_class_table(report["models"]))
        return parts

    def _sentences(self, budget_points: float | None) -> list[RenderableType]:
        lines: list[RenderableType] = [self.simulated] if self.simulated else []
        if self.int8.post is not None:
            post = self.int8.post
            lines.append(
                f"post-processing: confidence {post.confidence:g}, IoU {post.iou:g}, the same for both"
            )
        if self.agreement is not None:
            lines.append(f"same best class as float on {self.agreement:.1%} of the images")
        if self.drop is not None:
            lines.append(_resolution(self.drop, budget_points))
        return lines


def measure_accuracy(
    subject: Subject, dataset: Dataset, *, post: PostProcess, console: Console, replicates: int = 1000
) -> Accuracy:
    """Metrics of the subject and, where it has one, of its float model.

    Raises:
        DataError: the data set cannot judge the model.
        SpecError: a plain model does not tell its input or head.
    """
    specs = subject.known
    # Accuracy does not depend on the number of threads, so all cores help.
    options = replace(subject.options, threads=core_count())
    with console.progress() as progress:

        def run(name: str, path: Any, runtime: Any, specs: Specs) -> Evaluation:
            session = runtime.open_session(path, options=options)
            if subject.bundle is not None:
                # Of a plain model it was said when it was opened.
                console.warn_of_session(name, session.details)
            return evaluate(
                session, dataset, spec=specs.input, head=specs.head, post=post, workers=core_count(),
                progress=lambda done, total: progress(f"evaluate {name}", done, total),
            )  # fmt: skip

        reference, runner = subject.reference, subject.runner
        judged = subject.judged_name(compared=reference is not None)
        if runner.simulates:
            judged += " (simulated)"
        float_eval = (
            None
            if reference is None
            else run("float", reference, subject.reference_runtime, subject.reference_specs or specs)
        )
        int8_eval = run(judged, runner.path, runner.runtime, specs)
    found = accuracy_of(subject, float_eval, int8_eval, replicates=replicates)
    return replace(found, name=judged, simulated=runner.note)


def accuracy_of(
    subject: Subject, reference: Evaluation | None, int8: Evaluation, *, replicates: int = 1000
) -> Accuracy:
    """What evaluations made here or on a device say of the subject.

    Args:
        subject: what was judged.
        reference: of its float model; None: there is none to compare with.
        int8: of the subject.
        replicates: bootstrap samples of the drop's interval.
    """
    drop = agreement = None
    if reference is not None:
        drop = compare(reference, int8, replicates=replicates)
        agreement = prediction_agreement(reference, int8) if int8.task is Task.CLASSIFY else None
    return Accuracy(
        int8=int8,
        reference=reference,
        drop=drop,
        agreement=agreement,
        name=subject.judged_name(compared=reference is not None),
        size_mb=subject.size_mb,
        float_size_mb=None if subject.reference is None else size_mb(subject.reference),
    )


def _resolution(drop: Drop, budget_points: float | None) -> str:
    """What so many images can tell."""
    low, high = drop.drop_interval_points
    metric = "mAP 50-95" if drop.metric == "map50_95" else "top-1"
    text = f"drop of {metric}: {number(drop.drop_points)} points, 95 % interval {interval((low, high))}"
    if low <= 0 <= high and low != high:
        text += f"; not told apart from no drop with {drop.image_count} images"
    if budget_points is None:
        return text
    verdict = drop.against(budget_points)
    text += f"; {'within' if verdict.within else 'over'} the budget of {budget_points:g}"
    if verdict.resolvable:
        return text
    needed = f" (about {verdict.images_needed} would do)" if verdict.images_needed is not None else ""
    return f"{text}, but not resolvable with {drop.image_count} images{needed}"


def _class_table(models: list[dict[str, Any]]) -> RenderableType:
    """mAP 50-95 by class, those with labelled boxes, the greatest drop first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="mAP 50-95 by class", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in (
        "class",
        "boxes",
        *(model["name"] for model in models),
        *(["drop"] if len(models) > 1 else []),
    ):
        table.add_column(Text(head), justify="left" if head == "class" else "right")
    rows = []
    for entries in zip(*(model["per_class"] for model in models), strict=True):
        values = [entry["map50_95"] for entry in entries]
        if any(value is None for value in values):
            continue
        drop = (values[0] - values[-1]) * 100
        cells = [number(value, 3) for value in values] + ([number(drop)] if len(values) > 1 else [])
        rows.append((drop, [entries[0]["name"], str(entries[0]["box_count"]), *cells]))
    for _, row in sorted(rows, key=lambda entry: -entry[0]):
        table.add_row(*map(Text, row))
    return table
