"""Budgets: what the target asks by default, and what the user asks."""

from __future__ import annotations

from edgeq.cli.console import Console
from edgeq.cli.subject import Subject
from edgeq.errors import RecipeError
from edgeq.gate import Budget, merge
from edgeq.targets import load_target
from edgeq.types import Task

__all__ = ["budget_for", "default_drop_points", "drop_limit"]


def budget_for(flags: Budget, subject: Subject, target: str | None, console: Console) -> Budget:
    """The user's limits over those of the target.

    Args:
        flags: the user's.
        subject: a bundle knows its target.
        target: name or path that the user gave; None: the bundle's, where it is known here.
        console: told when a bundle's target is not known here.
    """
    task = None if subject.specs is None else subject.specs.head.task
    if target is not None:
        return merge(flags, load_target(target).budget, task=task)
    return merge(flags, _default(subject, console), task=task)


def default_drop_points(subject: Subject) -> float | None:
    """The target's limit on the drop of a bundle's metric."""
    return None if subject.specs is None else drop_limit(_default(subject, None), subject.specs.head.task)


def drop_limit(budget: Budget, task: Task) -> float | None:
    """The limit on the drop of the task's metric."""
    return budget.max_map_drop if task is Task.DETECT else budget.max_top1_drop


def _default(subject: Subject, console: Console | None) -> Budget:
    if subject.bundle is None:
        return Budget()
    name = subject.bundle.manifest.target
    try:
        return load_target(name).budget
    except RecipeError:
        # A user's own profile is known here by its path only.
        if console is not None:
            console.warn(
                f"the target {name!r} of the bundle is not known here, so its default limits are not "
                "checked; give its file with --target"
            )
        return Budget()
