"""Which devices: what ``--on`` names, one or many, and work on all of them at once."""

from __future__ import annotations

import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq.device.address import parse_address
from edgeq.device.link import DeviceLink
from edgeq.device.local import LocalLink
from edgeq.device.ssh import SshLink
from edgeq.errors import EdgeqError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FOLDER_VARIABLE", "DeviceEntry", "Outcome", "devices_named", "link_to", "on_all"]

FOLDER_VARIABLE = "EDGEQ_DEVICE_FOLDER"
"""Another place than ``~/.edgeq`` for edgeq's files on devices."""
_FOLDER = re.compile(r"(?:~/|/)[A-Za-z0-9._/@+-]+")
_MAX_BYTES = 1 << 20
_MAX_DEVICES = 64
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class DeviceEntry:
    """A device by its name."""

    name: str
    on: str
    """As for ``--on``."""
    folder: str = "~/.edgeq"
    ssh: tuple[str, ...] | None = None
    """The ssh command; None: the user's usual one."""

    @property
    def slug(self) -> str:
        """The name as part of a report's name."""
        return re.sub(r"[^a-z0-9._-]+", "-", self.name.lower()).strip("-.") or "device"


@dataclass(frozen=True)
class Outcome(Generic[_Result]):
    """What became of the work on one device: a result or an error."""

    entry: DeviceEntry
    result: _Result | None
    error: EdgeqError | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _DeviceFile(_Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$")]
    on: Annotated[str, Field(max_length=300)]
    folder: Annotated[str, Field(max_length=300)] | None = None
    ssh: Annotated[str, Field(max_length=1000)] | None = None


class _ListFile(_Strict):
    schema_version: Annotated[Literal[1], Field(alias="schema")]
    devices: Annotated[tuple[_DeviceFile, ...], Field(min_length=1, max_length=_MAX_DEVICES)]


def devices_named(texts: Sequence[str]) -> tuple[DeviceEntry, ...]:
    """The devices; a text that ends in ``.toml`` is a file that lists some.

    ::

        schema = 1
        [[devices]]
        name = "pi5"
        on = "pi@192.168.1.20"

    Raises:
        InputError: no device, one twice, or a list that is wrong.
    """
    found: list[DeviceEntry] = []
    for text in texts:
        if text.endswith(".toml"):
            found += _from_list(Path(text))
        else:
            found.append(_entry(text, text, None, None))
    names = [entry.name for entry in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"the device {twice!r} is named twice", fix="name each device once")
    return tuple(found)


def link_to(entry: DeviceEntry) -> DeviceLink:
    """The link to a device; nothing is connected yet."""
    address = parse_address(entry.on)
    if address.local:
        own = entry.folder if entry.folder.startswith("/") else None
        return LocalLink(None if own is None else Path(own))
    link = SshLink(address, folder=entry.folder, ssh=entry.ssh)
    link.name = entry.name
    return link


def on_all(entries: Sequence[DeviceEntry], job: Callable[[DeviceEntry], _Result]) -> list[Outcome[_Result]]:
    """The job on all devices at once; one that fails does not stop the others."""

    def run(entry: DeviceEntry) -> Outcome[_Result]:
        try:
            return Outcome(entry, job(entry), None)
        except EdgeqError as error:
            return Outcome(entry, None, error)

    if len(entries) == 1:
        return [run(entries[0])]
    # Daemons, not a pool: Ctrl-C must not wait for minutes of measurement on every board.
    outcomes: dict[int, Outcome[_Result]] = {}
    bugs: list[BaseException] = []

    def work(number: int, entry: DeviceEntry) -> None:
        try:
            outcomes[number] = run(entry)
        except BaseException as error:
            bugs.append(error)

    threads = [
        threading.Thread(target=work, args=(number, entry), daemon=True)
        for number, entry in enumerate(entries)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if bugs:
        raise bugs[0]
    return [outcomes[number] for number in range(len(entries))]


def _entry(name: str, on: str, folder: str | None, ssh: str | None) -> DeviceEntry:
    parse_address(on)
    chosen = folder or os.environ.get(FOLDER_VARIABLE) or "~/.edgeq"
    if not _FOLDER.fullmatch(chosen) or ".." in chosen.split("/"):
        raise InputError(
            f"{chosen!r} is no folder for a device",
            fix="give a path that begins with / or ~/, without spaces",
        )
    return DeviceEntry(name, on, chosen.rstrip("/"), None if ssh is None else tuple(shlex.split(ssh)))


def _from_list(path: Path) -> list[DeviceEntry]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InputError(f"{path} is over {_MAX_BYTES >> 20} MB: no list of devices")
        parsed = _ListFile.model_validate(tomllib.loads(content.decode()))
    except OSError as error:
        raise InputError(
            f"the list of devices {path} cannot be read: {error.strerror}", fix="check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the list of devices {path} is not TOML: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise InputError(
            f"the list of devices {path}: {where}: {problem['msg']}",
            fix="it holds schema = 1 and [[devices]] with name, on, and where wanted folder and ssh",
        ) from error
    return [_entry(device.name, device.on, device.folder, device.ssh) for device in parsed.devices]
