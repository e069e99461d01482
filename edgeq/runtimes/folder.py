"""The door of a runtime's folder: what every runtime has in files of the same names, loaded when it is used.

Making a runtime loads nothing of the vendor's, so `edgeq targets`, `doctor` and the device's agent can look
at all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.runtimes.base import Artifact, AuditReport, LowerOptions, ProbeReport, Session, SessionOptions

__all__ = ["RuntimeFolder"]


class RuntimeFolder:
    """Members of `edgeq.runtimes.base.Runtime` that are functions of the folder's own modules."""

    keeps_interface: bool = False
    """Whether an artifact's inputs and outputs have the float model's names, shapes and types."""

    @property
    def session_factory(self) -> str:
        """``open_session`` of the folder's ``session``."""
        return f"{type(self).__module__}.session:open_session"

    def open_session(self, artifact: Path, *, options: SessionOptions) -> Session:
        """See the folder's ``session``."""
        session: Session = self._part("session").open_session(artifact, options)
        return session

    def audit(
        self, artifact: Path, *, options: SessionOptions, reasons: Mapping[str, str] | None = None
    ) -> AuditReport:
        """See the folder's ``audit``."""
        report: AuditReport = self._part("audit").audit(artifact, options=options, reasons=reasons)
        return report

    def probe(self) -> ProbeReport:
        """See the folder's ``probe``."""
        report: ProbeReport = self._part("probe").probe()
        return report

    def lower(self, model: bytes, folder: Path, *, options: LowerOptions) -> Artifact:
        """See the folder's ``lower``."""
        artifact: Artifact = self._part("lower").lower(model, folder, options)
        return artifact

    def _part(self, name: str) -> Any:
        return importlib.import_module(f"{type(self).__module__}.{name}")
