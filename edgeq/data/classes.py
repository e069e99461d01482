"""Do a data set's classes and a model's classes mean the same?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeq.errors import DataError
from edgeq.types import Dataset, DetectionTruth

__all__ = ["are_placeholders", "check_classes", "matching_indices", "normalize_name", "placeholder_names"]

_PLACEHOLDER = re.compile(r"(class|cls|label|item|category|id|object)?[ _-]?\d+", re.IGNORECASE)
_SHOWN = 5


def placeholder_names(count: int) -> tuple[str, ...]:
    """``class0``, ``class1``, ...: names for classes that have none."""
    return tuple(f"class{index}" for index in range(count))


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether these names are only numbers in disguise (or there are none)."""
    return all(_PLACEHOLDER.fullmatch(name.strip()) for name in names)


def normalize_name(name: str) -> str:
    """The name for comparison: lower case, with single spaces for ``_``, ``-`` and spaces."""
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


def matching_indices(names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Index into ``wanted`` of each name; None where one is missing or a name is ambiguous."""
    index_of = {normalize_name(name): index for index, name in enumerate(wanted)}
    found = [index_of.get(normalize_name(name)) for name in names]
    indices = tuple(index for index in found if index is not None)
    distinct = len(index_of) == len(wanted) and len(set(indices)) == len(names)
    return indices if distinct else None


def check_classes(dataset: Dataset, class_names: Sequence[str]) -> None:
    """Returns if the data set's labels can be read as the model's classes.

    The counts must agree, and where both sides carry real names, so must the names one by one
    (case, ``_`` and ``-`` apart). Names like ``class0`` or ``7`` count as none. A data set without
    class names (bare indices) only needs its labels to be within the model's classes.

    Args:
        dataset: the data set as opened.
        class_names: the model's classes, in its order.

    Raises:
        DataError: counts or names differ, or a label lies beyond the model's classes.
    """
    own = dataset.class_names
    if own and len(own) != len(class_names):
        raise DataError(
            f"{dataset.origin} has {len(own)} classes, the model has {len(class_names)}"
            f"{_only_here(own, class_names)}",
            fix="use the data set that the model was trained for, or give the model's class names",
        )
    if own and not are_placeholders(own) and not are_placeholders(class_names):
        _check_names(dataset.origin, own, class_names)
    _check_labels(dataset, len(class_names))


def _only_here(own: Sequence[str], wanted: Sequence[str]) -> str:
    if are_placeholders(own) or are_placeholders(wanted):
        return ""
    known = {normalize_name(name) for name in wanted}
    extra = [name for name in own if normalize_name(name) not in known]
    return f" (not in the model: {_listed(extra)})" if extra else ""


def _check_names(origin: str, own: Sequence[str], wanted: Sequence[str]) -> None:
    pairs = enumerate(zip(own, wanted, strict=True))
    differing = [
        f"{index}: {mine!r} against {theirs!r}"
        for index, (mine, theirs) in pairs
        if normalize_name(mine) != normalize_name(theirs)
    ]
    if not differing:
        return
    same_set = {normalize_name(n) for n in own} == {normalize_name(n) for n in wanted}
    what = "the same class names in another order" if same_set else "other class names"
    raise DataError(
        f"{origin} has {what} than the model: {_listed(differing)}",
        fix="make the names and their order in the data set those of the model",
    )


def _check_labels(dataset: Dataset, count: int) -> None:
    for sample in dataset.samples:
        truth = sample.truth
        if isinstance(truth, DetectionTruth):
            highest = max(truth.class_ids.tolist(), default=-1)
        else:
            highest = -1 if truth is None else truth
        if highest >= count:
            raise DataError(
                f"{sample.key} in {dataset.origin} is labelled with class {highest}; "
                f"the model's classes are 0 to {count - 1}",
                fix="correct the label, or use the model's own data set",
            )


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
