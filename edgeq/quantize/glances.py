"""What later stages ask of the float model on some calibration images, seen while statistics are taken.

Each would otherwise run the float model on them once more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from edgeq.types import Float32Array

__all__ = ["Glances", "Look", "Values"]

Values = Mapping[str, Float32Array]
"""Tensor name -> what it held for one image."""
Look = Callable[[Values], None]
_Result = TypeVar("_Result")


class Glances:
    """Functions of tensors, each for images of its own."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._looks: dict[int, list[Look]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Tensors that are asked for."""
        return tuple(self._names)

    def ask(
        self, names: Collection[str], images: Collection[int], function: Callable[[Values], _Result]
    ) -> Mapping[int, _Result]:
        """Image -> the function of its tensors, filled in as images are looked at.

        Statistics from the cache take no look, so what is missing afterwards has to be computed.

        Args:
            names: of the tensors that it reads.
            images: numbers in the calibration set.
            function: called in several threads, for an image in each.
        """
        found: dict[int, _Result] = {}

        def keep(image: int) -> Look:
            return lambda values: found.__setitem__(image, function(values))

        self._names.update(dict.fromkeys(names))
        for image in images:
            self._looks.setdefault(image, []).append(keep(image))
        return found

    def looks(self, images: range) -> dict[int, Look]:
        """What is to be done with the tensors of these images, by position in the range."""
        return {images.index(image): self._all(image) for image in images if image in self._looks}

    def _all(self, image: int) -> Look:
        def look(values: Values) -> None:
            for one in self._looks[image]:
                one(values)

        return look
