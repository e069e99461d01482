"""What a runtime or its sessions may offer besides; whoever asks finds out with ``isinstance``.

Device side: no import of onnx or of the quantisation core.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy.typing as npt

from edgeq.runtimes.base import Artifact, LayerTime

if TYPE_CHECKING:
    from edgeq.types import HeadSpec, InputSpec, PostProcess

__all__ = [
    "ConcurrentSession",
    "IntegerPart",
    "ProfiledSession",
    "SelfTimedSession",
    "ShowsIntegers",
    "Simulated",
    "SimulatedOtherwise",
    "WithSuppression",
]


@runtime_checkable
class ProfiledSession(Protocol):
    """A session whose runtime can tell where the time goes; a `Session` need not be one."""

    def profile(self, tensor: npt.NDArray[Any], *, runs: int) -> tuple[LayerTime, ...]:
        """Each executed layer, in order; measuring slows the inferences down a little.

        Args:
            tensor: as for ``infer``.
            runs: inferences that the times are the median of, after one that does not count.
        """
        ...


@runtime_checkable
class ConcurrentSession(Protocol):
    """A session that runs several inferences at once; a `Session` need not be one."""

    @property
    def in_flight(self) -> int:
        """With so many at once it is busiest, as it was opened."""
        ...

    def infer_all(self, tensors: Iterable[npt.NDArray[Any]]) -> None:
        """Infer from all of them, so many at once; the outputs are dropped.

        Raises:
            ModelError: as ``infer``.
        """
        ...


@runtime_checkable
class SelfTimedSession(Protocol):
    """A session whose inferences cannot be timed from outside, as each starts a process: it times itself."""

    @property
    def timing(self) -> str:
        """What took the times and what they are of, in words."""
        ...

    def time_runs(
        self, tensor: npt.NDArray[Any], *, runs: int, duration_s: float, warm_up_s: float
    ) -> tuple[int, ...]:
        """Nanoseconds of each of successive inferences in one process, in order.

        Args:
            tensor: as for ``infer``.
            runs: inferences at least, the warm-up not counted.
            duration_s: go on for at least so long after the warm-up.
            warm_up_s: infer for so long before; those are not among the times.

        Raises:
            ModelError: as ``infer``.
        """
        ...


@runtime_checkable
class Simulated(Protocol):
    """What a runtime offers besides whose sessions not every machine can open that lowers for it.

    Where it does not run, accuracy comes from the QDQ model in ONNX Runtime, and every report says so.
    """

    def runs_here(self) -> bool:
        """Whether sessions can be opened on this machine; nothing of the vendor's is loaded to find out."""
        ...


@runtime_checkable
class SimulatedOtherwise(Protocol):
    """What a runtime offers besides whose artifacts do not round as the QDQ model does in ONNX Runtime."""

    def simulation(self, model: bytes) -> bytes:
        """The QDQ model so written that ONNX Runtime rounds as the artifact does (host).

        Raises:
            ModelError: it is no QDQ model.
        """
        ...


@runtime_checkable
class WithSuppression(Protocol):
    """What a runtime offers besides that can suppress overlapping boxes itself."""

    def with_suppression(
        self, model: bytes, path: Path, *, spec: InputSpec, head: HeadSpec, post: PostProcess
    ) -> Artifact:
        """A detector with non-maximum suppression inside (host).

        Args:
            model: serialised QDQ or float model.
            path: what to write; replaced where it exists.
            spec: its input.
            head: its head.
            post: thresholds where the app gives none.

        Raises:
            SpecError: the head needs none.
            InputError, ModelError, OutputError, UnavailableError: as lowering.
        """
        ...


@dataclass(frozen=True)
class IntegerPart:
    """An artifact that gives the tensors where its INT8 part begins and ends, in the order of the model."""

    path: Path
    begins: frozenset[str]
    """Outputs that float layers, or the input, were rounded to."""
    ends: frozenset[str]
    """Outputs that float layers or the caller read."""


@runtime_checkable
class ShowsIntegers(Protocol):
    """What a runtime offers besides whose artifacts can be cut where float and INT8 layers meet.

    Integers can be compared to the bit between machines; float layers round as each CPU does.
    """

    def integer_part(self, artifact: Path, folder: Path) -> IntegerPart | None:
        """The artifact cut there, written into a folder (host); None: it computes nothing in INT8.

        Raises:
            ModelError: the artifact is damaged.
            OutputError: it cannot be written.
            UnavailableError: what it takes to cut it is not installed.
        """
        ...
