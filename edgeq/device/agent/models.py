"""What the host wants to run: its files in a folder of their own, checked before anything opens them."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.bundle.check import MANIFEST, FileDigest, check_file, check_name, load_manifest_json
from edgeq.device.agent.store import BlobLost, Store
from edgeq.errors import BundleError, UnavailableError
from edgeq.runtimes.base import Runtime, Session, SessionOptions
from edgeq.runtimes.options import options_from_json

__all__ = ["Model", "Models", "runtime_named"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class Model:
    """An artifact on the device, its files checked."""

    artifact: Path
    runtime: Runtime
    asked: SessionOptions
    """By the host; its threads come with each job."""

    def options(self, threads: int) -> SessionOptions:
        """How to open it."""
        return replace(self.asked, threads=threads)

    def open(self, threads: int) -> Session:
        """A session.

        Raises:
            ModelError: the runtime cannot load it.
            UnavailableError: the runtime is not here.
        """
        return self.runtime.open_session(self.artifact, options=self.options(threads))


class Models:
    """The models of this agent, by number, in a folder that goes when the agent ends."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.root / "run" / str(os.getpid())
        self._numbers = itertools.count(1)
        self._models: dict[int, Model] = {}
        _clear_left_behind(store.root / "run")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def load(self, request: Mapping[str, Any]) -> int:
        """Put a model's files together and check them; its number.

        Raises:
            BundleError: a file is not what the manifest says.
            BlobLost: a file has to be sent again.
            InputError: session options that this edgeq has not.
            UnavailableError: the runtime is not one of edgeq's, or not installed.
        """
        runtime = runtime_named(str(request["runtime"]))
        number = next(self._numbers)
        folder = self._folder / str(number)
        digests = {
            str(name): FileDigest(str(entry["sha256"]), int(entry["size_bytes"]))
            for name, entry in request["files"].items()
        }
        for name, digest in digests.items():
            check_name(name)
            self._store.place(digest.sha256, folder / name)
        for name, digest in digests.items():
            self._check(folder, name, digest)
        if MANIFEST in digests:
            _check_manifest(folder, digests)
        artifact = str(request["artifact"])
        check_name(artifact)
        self._models[number] = Model(folder / artifact, runtime, options_from_json(request["options"]))
        return number

    def get(self, number: object) -> Model:
        """The model of that number.

        Raises:
            BundleError: there is none.
        """
        if not isinstance(number, int) or number not in self._models:
            raise BundleError(f"there is no model {number!r} on the device")
        return self._models[number]

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check(self, folder: Path, name: str, digest: FileDigest) -> None:
        try:
            check_file(folder, name, digest)
        except BundleError as error:
            # It was whole when it came, so the card rotted: the host may send it again.
            self._store.drop(digest.sha256)
            raise BlobLost(f"on the device {error.message}") from error


def runtime_named(name: str) -> Runtime:
    """A runtime of edgeq's by name; nothing of the vendor's is imported.

    Raises:
        UnavailableError: it did not travel with the agent.
    """
    if not _NAME.fullmatch(name):
        raise UnavailableError(f"{name[:40]!r} is no name of a runtime")
    try:
        runtime: Runtime = importlib.import_module(f"edgeq.runtimes.{name}").RUNTIME
    except (ImportError, AttributeError) as error:
        raise UnavailableError(f"the agent has no runtime {name!r}") from error
    return runtime


def _check_manifest(folder: Path, digests: Mapping[str, FileDigest]) -> None:
    """Whether the bundle's own manifest says the same of every file that came.

    Raises:
        BundleError: it does not.
    """
    data, _ = load_manifest_json(folder)
    files = data.get("files")
    for name, digest in digests.items():
        entry = files.get(name) if isinstance(files, dict) else None
        if name == MANIFEST:
            continue
        if not isinstance(entry, dict) or entry.get("sha256") != digest.sha256:
            raise BundleError(
                f"{name!r} is not the file that the bundle's manifest names", fix="copy the bundle again"
            )


def _clear_left_behind(folder: Path) -> None:
    """Remove what killed agents left; a folder is named by the process that made it."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.name.isdigit() and not Path(f"/proc/{entry.name}").exists() and Path("/proc").exists():
            shutil.rmtree(entry, ignore_errors=True)
