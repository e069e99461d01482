"""The agent as one file: a zip of just those modules of edgeq that the device side needs.

They are found by following the imports at module level from a few entry modules, those for type checkers left
out. Same sources, same bytes: the SHA-256 of the zip is the agent's name on the device, where an unchanged
one is not sent again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import edgeq

__all__ = ["Agent", "agent_modules", "build_agent"]

_ROOT = Path(edgeq.__file__).parent
_ENTRIES = tuple(
    f"edgeq.device.agent.{name}"
    for name in ("serve", "audit", "bench", "digests", "facts", "inference", "install", "models", "profile")
)
"""With what ``serve`` imports only when it is asked for it."""
_RUNTIME_MODULES = ("session", "audit", "probe", "profile")
_MAIN = "from edgeq.device.agent.serve import main\n\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Agent:
    """The file that goes to the device."""

    content: bytes
    sha256: str

    @property
    def file_name(self) -> str:
        """Its name on the device."""
        return f"{self.sha256[:32]}.pyz"


@functools.lru_cache(maxsize=1)
def build_agent() -> Agent:
    """The zip, with ``__main__.py`` at its top so that Python runs it as it is."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted({"__main__.py": _MAIN.encode(), **_sources()}.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    content = target.getvalue()
    return Agent(content, hashlib.sha256(content).hexdigest())


def agent_modules() -> tuple[str, ...]:
    """Names of the modules that travel, packages included."""
    found: set[str] = set()
    pending = [*_ENTRIES, *_runtime_entries()]
    while pending:
        name = pending.pop()
        if name in found or _file_of(name) is None:
            continue
        found.add(name)
        # A package is imported before what lies in it.
        if "." in name:
            pending.append(name.rpartition(".")[0])
        pending += _imports(name)
    return tuple(sorted(found))


def _runtime_entries() -> Iterator[str]:
    for folder in sorted((_ROOT / "runtimes").iterdir()):
        if (folder / "session.py").is_file():
            yield f"edgeq.runtimes.{folder.name}"
            yield from (f"edgeq.runtimes.{folder.name}.{part}" for part in _RUNTIME_MODULES)


def _sources() -> dict[str, bytes]:
    """Path in the zip -> content."""
    out: dict[str, bytes] = {}
    for name in agent_modules():
        file = _file_of(name)
        if file is not None:
            out[file.relative_to(_ROOT.parent).as_posix()] = file.read_bytes()
    return out


def _file_of(name: str) -> Path | None:
    """The source file of one of edgeq's modules; None: not one of them."""
    first, *rest = name.split(".")
    if first != "edgeq":
        return None
    path = _ROOT.joinpath(*rest)
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if rest and path.with_suffix(".py").is_file() else None


def _imports(name: str) -> Iterator[str]:
    """Modules of edgeq that this one imports when it is imported itself."""
    file = _file_of(name)
    if file is None:
        return
    for node in _at_import(ast.parse(file.read_bytes(), str(file)).body):
        if isinstance(node, ast.Import):
            yield from (entry.name for entry in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{entry.name}" for entry in node.names)


def _at_import(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Import statements that run with the module: not inside functions, not for type checkers."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If):
            if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                yield from _at_import(node.body)
            yield from _at_import(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _at_import(node.body)
            yield from (inner for handler in node.handlers for inner in _at_import(handler.body))


if __name__ == "__main__":
    sys.stdout.write("\n".join(agent_modules()) + "\n")
