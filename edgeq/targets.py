"""Target profiles: a device as TOML, checked once, then a frozen `Target`."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq.errors import InputError, RecipeError
from edgeq.gate import Budget
from edgeq.resources import data_folder
from edgeq.types import IntegerType

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CpuFeature", "Note", "Target", "Wheels", "list_targets", "load_target"]

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class CpuFeature:
    """Instructions that a target counts on."""

    any_of: tuple[str, ...]
    """Names as in the kernel's ``/proc/cpuinfo`` flags; one of them is enough."""
    why: str
    """What is lost without, in words for ``edgeq doctor``."""


@dataclass(frozen=True)
class Note:
    """A fact about the target and where it comes from."""

    text: str
    source: str


@dataclass(frozen=True)
class Wheels:
    """What ``pip download`` is told for a board that is not at hand."""

    platforms: tuple[str, ...]
    """Platform tags, the newest first: ``manylinux_2_27_aarch64``."""
    python: tuple[str, ...]
    """Versions of CPython that the system ships, the newest first: ``3.13``."""


@dataclass(frozen=True)
class Target:
    """A device profile."""

    name: str
    title: str
    runtime: str
    architecture: str
    """As ``platform.machine()`` says on Linux: ``x86_64``, ``aarch64``."""
    threads: int
    activation_dtype: IntegerType
    """What the runtime's kernels are fastest with here."""
    default_float: str
    """Precision of the float model that INT8 is compared with."""
    compute_capability: str | None = None
    """Of the NVIDIA GPU: ``8.7``; None: there is none."""
    weight_bits: int = 8
    """7 where products of 8-bit weights do not fit into the CPU's 16-bit sums."""
    cpu_features: tuple[CpuFeature, ...] = ()
    budget: Budget = field(default_factory=Budget)
    notes: tuple[Note, ...] = ()
    cores: int | None = None
    """Cores of the CPU; None: they differ from board to board."""
    memory_mb: int | None = None
    """Memory of the smallest variant that is sold, MiB; None: it differs from board to board."""
    system: str | None = None
    """Operating system that the facts and wheels are about."""
    wheels: Wheels | None = None
    """Which wheels run there, to set a board up from the host; None: not known, or no Python there."""
    origin: Path | None = None
    """The file that it was read from."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
_Platform = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
_Python = Annotated[str, Field(pattern=r"^3\.[0-9]{1,2}$")]
_Flag = Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,32}$")]


class _FeatureFile(_Strict):
    any_of: Annotated[tuple[_Flag, ...], Field(min_length=1)]
    why: _Text


class _NoteFile(_Strict):
    text: _Text
    source: _Text


class _WheelsFile(_Strict):
    platforms: Annotated[tuple[_Platform, ...], Field(min_length=1, max_length=8)]
    python: Annotated[tuple[_Python, ...], Field(min_length=1, max_length=8)]


class _TargetFile(_Strict):
    """The TOML file, field by field."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: _Name
    title: _Text
    runtime: _Name
    architecture: _Text
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    activation_dtype: IntegerType
    default_float: Literal["float32", "float16", "bfloat16"] = "float32"
    compute_capability: Annotated[str, Field(pattern=r"^[1-9][0-9]?\.[0-9]$")] | None = None
    weight_bits: Literal[7, 8] = 8
    cpu_features: tuple[_FeatureFile, ...] = ()
    budget: Budget = Budget()
    notes: tuple[_NoteFile, ...] = ()
    cores: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_mb: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    system: _Text | None = None
    wheels: _WheelsFile | None = None


def list_targets() -> tuple[Target, ...]:
    """The shipped targets, by name.

    Raises:
        RecipeError: a shipped profile is wrong.
        UnavailableError: the installation lacks them.
    """
    return tuple(_read(path) for path in sorted(data_folder("targets").glob("*.toml")))


def load_target(name_or_path: str | Path) -> Target:
    """A shipped target by name, or a user's own TOML file by path.

    Args:
        name_or_path: text that ends in ``.toml`` or has a path separator is a path, else a name.

    Raises:
        RecipeError: no such target (with the nearest names), or the file is wrong.
        UnavailableError: the installation lacks the shipped targets.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text or "\\" in text:
        return _read(Path(name_or_path))
    names = [path.stem for path in sorted(data_folder("targets").glob("*.toml"))]
    if text not in names:
        near = difflib.get_close_matches(text, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise RecipeError(
            f"there is no target named {text!r}",
            fix=f"{hint}known: {', '.join(names)}; or give the path of your own TOML file",
        )
    return _read(data_folder("targets") / f"{text}.toml")


def _read(path: Path) -> Target:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise RecipeError(f"target {path} is over {_MAX_BYTES >> 20} MB: not a profile")
        data = tomllib.loads(content.decode())
    except OSError as error:
        raise RecipeError(
            f"target {path} cannot be read: {error.strerror}", fix="see 'edgeq targets' for the names"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"target {path} is not TOML: {error}") from error
    version = data.get("schema")
    if isinstance(version, int) and version > 1:
        raise RecipeError(
            f"target {path} has schema {version}, this edgeq reads 1", fix="pip install --upgrade edgeq"
        )
    try:
        parsed = _TargetFile.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"target {path}: {_first_problem(error)}") from error
    except InputError as error:
        raise RecipeError(f"target {path}: budget: {error.message}") from error
    return _to_target(parsed, path)


def _to_target(parsed: _TargetFile, path: Path) -> Target:
    return Target(
        name=parsed.name,
        title=parsed.title,
        runtime=parsed.runtime,
        architecture=parsed.architecture,
        threads=parsed.threads,
        activation_dtype=parsed.activation_dtype,
        default_float=parsed.default_float,
        compute_capability=parsed.compute_capability,
        weight_bits=parsed.weight_bits,
        cpu_features=tuple(CpuFeature(entry.any_of, entry.why) for entry in parsed.cpu_features),
        budget=parsed.budget,
        notes=tuple(Note(entry.text, entry.source) for entry in parsed.notes),
        cores=parsed.cores,
        memory_mb=parsed.memory_mb,
        system=parsed.system,
        wheels=None if parsed.wheels is None else Wheels(parsed.wheels.platforms, parsed.wheels.python),
        origin=path,
    )


# What pydantic calls it in a model and in a dataclass.
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_KNOWN_KEYS = {
    (): ["schema", *(entry.name for entry in fields(Target) if entry.name != "origin")],
    ("budget",): [entry.name for entry in fields(Budget)],
    ("cpu_features",): ["any_of", "why"],
    ("notes",): ["text", "source"],
    ("wheels",): [entry.name for entry in fields(Wheels)],
}


def _first_problem(error: ValidationError) -> str:
    """The first complaint in one line; an unknown key with the nearest known ones."""
    # An unknown key first: a missing one is often the same key, misspelt.
    problem: Any = min(error.errors(), key=lambda entry: entry["type"] not in _UNKNOWN_KEY)
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] not in _UNKNOWN_KEY:
        return f"{where}: {problem['msg']}"
    parents = tuple(part for part in problem["loc"][:-1] if isinstance(part, str))
    known = _KNOWN_KEYS.get(parents, [])
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"
