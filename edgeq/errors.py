"""The error tree of edgeq, and the exit code that each branch stands for.

::

    EdgeqError                     a user can mend it: message, no traceback       exit 2
    ├── InputError                 something given to edgeq is wrong
    │   ├── ModelError             not a model, or one that cannot be taken
    │   ├── SpecError              input or head spec unknown, ambiguous or unfit
    │   ├── DataError              data set, labels or images
    │   │   └── CalibrationError   the calibration set would give a silently bad model
    │   ├── RecipeError            recipe or target file
    │   └── BundleError            bundle damaged, incomplete or not a bundle
    ├── OutputError                the result cannot be written (exists, disk full)
    ├── BudgetError                measured, and over budget                        exit 3
    └── UnavailableError           a device, runtime or extra is not there          exit 4

A bug is any other exception: traceback, exit 1. Ctrl-C: exit 130.
"""

from __future__ import annotations

__all__ = [
    "BudgetError",
    "BundleError",
    "CalibrationError",
    "DataError",
    "EdgeqError",
    "InputError",
    "ModelError",
    "OutputError",
    "RecipeError",
    "SpecError",
    "UnavailableError",
]


class EdgeqError(Exception):
    """What went wrong, why, and how to mend it.

    Args:
        message: what failed and why, one or two sentences, naming the file, node or class.
        fix: how to mend it, with a command where one exists.
    """

    exit_code = 2

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return self.message if self.fix is None else f"{self.message}\n  fix: {self.fix}"


class InputError(EdgeqError):
    """Something given to edgeq is wrong."""


class ModelError(InputError):
    """The source is not a model, or not one that edgeq can take."""


class SpecError(InputError):
    """The input or head spec is unknown, ambiguous or does not fit the model."""


class DataError(InputError):
    """A data set, its labels or its images are wrong."""


class CalibrationError(DataError):
    """The calibration set would silently give a bad model."""


class RecipeError(InputError):
    """A recipe or target file is wrong."""


class BundleError(InputError):
    """A bundle is damaged, incomplete or not a bundle."""


class OutputError(EdgeqError):
    """The result cannot be written."""


class BudgetError(EdgeqError):
    """The measured result is over its budget."""

    exit_code = 3


class UnavailableError(EdgeqError):
    """A device, a runtime or an optional extra is not there."""

    exit_code = 4
