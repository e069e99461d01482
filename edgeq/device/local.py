"""This machine as a device: the same agent and the same checks, without a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgeq.device.process import ChildProcess, check_put, quoted_path

__all__ = ["LocalLink"]


class LocalLink:
    """See `edgeq.device.link.DeviceLink`.

    Args:
        folder: for edgeq's files; None: in the user's cache.
        python: the interpreter to use; None: the one that runs edgeq.
    """

    name = "local"

    def __init__(self, folder: Path | None = None, *, python: str | None = None) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = str((folder or cache / "edgeq" / "device").absolute())
        self.python: str | None = python or sys.executable

    def open(self) -> None:
        """Nothing to connect to."""

    def start(self, script: str) -> ChildProcess:
        """The script, run by this machine's shell."""
        return ChildProcess(["/bin/sh", "-c", script])

    def put(self, content: bytes, path: str) -> None:
        """A file, whole or not at all."""
        target = quoted_path(path)
        # The shell's own number: two writers of one file must not share its unfinished form.
        script = (
            f'mkdir -p "$(dirname {target})" && cat > {target}.$$ && mv {target}.$$ {target} '
            f"|| {{ rm -f {target}.$$; exit 1; }}"
        )
        check_put(self.start(script), content, path, self.name)

    def close(self) -> None:
        """Nothing to close."""
