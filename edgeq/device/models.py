"""A model as it goes to a device: its files with their hashes, and how it is opened there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeq.bundle.check import MANIFEST
from edgeq.bundle.manifest import FileRole
from edgeq.bundle.read import Bundle
from edgeq.device.answers import Loaded, parse
from edgeq.device.client import Device, Upload
from edgeq.errors import ModelError
from edgeq.files import sha256_of
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.options import options_json

__all__ = ["DeviceModel", "bundle_model", "file_model"]


@dataclass(frozen=True)
class DeviceModel:
    """An artifact for a device."""

    runtime: str
    artifact: str
    """Its name among the files."""
    files: Mapping[str, Upload] = field(repr=False)
    """By their names in the folder that the device makes of them."""
    options: SessionOptions = field(default_factory=SessionOptions)
    """How it is opened there; threads are told with each job."""

    def bring(self, device: Device) -> int:
        """The model's number on the device, its files sent where they are not there.

        Raises:
            DeviceError: no room, no such runtime, or a file that is not what the manifest says.
            LinkLost: the agent or the connection is gone.
        """
        device.upload(list(self.files.values()))
        request = {
            "runtime": self.runtime,
            "artifact": self.artifact,
            "options": options_json(self.options),
            "files": {
                name: {"sha256": file.sha256, "size_bytes": file.size_bytes}
                for name, file in self.files.items()
            },
        }
        return parse(Loaded, device.request("load", request), device.name).model


def bundle_model(bundle: Bundle) -> DeviceModel:
    """A bundle's artifact with its manifest, by which the device checks it.

    The hashes are the manifest's: opening the bundle has checked them.
    """
    entries = bundle.manifest.files.items()
    files = {
        name: Upload(bundle.folder / name, entry.sha256, entry.size_bytes)
        for name, entry in entries
        if entry.role is FileRole.ARTIFACT
    }
    files[MANIFEST] = _upload(bundle.folder / MANIFEST)
    return DeviceModel(bundle.manifest.runtime, bundle.manifest.artifact, files)


def file_model(artifact: Path, runtime: str) -> DeviceModel:
    """A model that is a file, or a folder, with what lies beside it and belongs to it.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        if artifact.is_dir():
            inside = [path for path in sorted(artifact.rglob("*")) if path.is_file()]
            files = {path.relative_to(artifact.parent).as_posix(): _upload(path) for path in inside}
        else:
            files = {path.name: _upload(path) for path in (artifact, *_beside(artifact)) if path.is_file()}
    except OSError as error:
        raise ModelError(f"{artifact} cannot be read: {error.strerror}") from error
    return DeviceModel(runtime, artifact.name, files)


def _beside(artifact: Path) -> tuple[Path, ...]:
    """Weights as OpenVINO and ONNX may keep them, and the float file that an integers-only one goes on in."""
    tail = artifact.with_suffix(f".tail{artifact.suffix}")
    return artifact.with_suffix(".bin"), Path(f"{artifact}.data"), tail


def _upload(path: Path) -> Upload:
    return Upload(path, sha256_of(path), path.stat().st_size)
