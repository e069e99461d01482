"""Where the ARM environment lies, and what of it is there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import UnavailableError
from tools.arm import recipe

MAKE = "python -m tools.arm make"


@dataclass(frozen=True)
class Environment:
    """One environment in the cache folder; its parts exist once ``make`` has finished them.

    Args:
        folder: of this environment, named by what it is made of.
        shared: downloads that all environments of the machine use.
    """

    folder: Path
    shared: Path

    @property
    def root(self) -> Path:
        """A clean aarch64 Debian: Python with venv, an SSH server, nothing of edgeq."""
        return self.folder / "root"

    @property
    def kernel(self) -> Path:
        """Holds ``vmlinuz`` and the few modules that the board loads."""
        return self.folder / "kernel"

    @property
    def wheels(self) -> Path:
        """What the device side needs from the package index, for aarch64, not installed."""
        return self.folder / "wheels"

    @property
    def site(self) -> Path:
        """The wheels, installed; user-mode programs have it on their Python path."""
        return self.folder / "site"

    @property
    def board(self) -> Path:
        """The board's initial RAM disk, keys and SSH configuration."""
        return self.folder / "board"

    @property
    def facts_file(self) -> Path:
        """Versions of what was installed; written last, so that its presence says the rest is whole."""
        return self.folder / "facts.json"

    @property
    def is_made(self) -> bool:
        """Whether ``make`` has finished."""
        return self.facts_file.is_file()

    def facts(self) -> dict[str, Any]:
        """Versions: ``python``, ``kernel``, ``packages`` and ``wheels`` by name."""
        found: dict[str, Any] = json.loads(self.facts_file.read_text(encoding="utf-8"))
        return found

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Say that the environment is complete, and of what."""
        with whole(self.facts_file) as unfinished:
            unfinished.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def locate() -> Environment:
    """The environment that this checkout wants, made or not.

    ``EDGEQ_ARM_CACHE``, else ``edgeq-arm`` in the user's cache folder, holds it.
    """
    named = os.environ.get("EDGEQ_ARM_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shared = Path(named) if named else user / "edgeq-arm"
    digest = hashlib.sha256(json.dumps(recipe.identity(), sort_keys=True).encode()).hexdigest()[:10]
    return Environment(shared.resolve() / digest, shared.resolve())


def require() -> Environment:
    """The environment, made.

    Raises:
        UnavailableError: it has not been made on this machine.
    """
    environment = locate()
    if not environment.is_made:
        raise UnavailableError(
            f"the ARM environment has not been made (looked in {environment.folder})", fix=MAKE
        )
    return environment


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    yield unfinished
    unfinished.replace(path)
