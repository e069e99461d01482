"""Where engines and timings are kept on the device that runs them. Device side.

An engine fits one TensorRT version and one kind of GPU, so it is kept under a hash of the model, of both and
of how it was built, and never leaves the device. It is code, so the folder is this user's alone. Whoever
builds, TensorRT's module or ``trtexec``, finds what the other one built.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import EdgeqError, ModelError, OutputError
from edgeq.files import atomic_write
from edgeq.runtimes.base import SessionOptions

__all__ = ["Device", "Kept", "keep", "kept_for", "read_model"]


@dataclass(frozen=True)
class Device:
    """What an engine is tied to."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Kept:
    """The cache's files for one engine; they need not be there."""

    engine: Path
    timing: Path
    """What TensorRT measured while it built for this device: the next build is the quicker for it."""


def kept_for(version: str, model: bytes, options: SessionOptions, device: Device) -> Kept:
    """The files for a model's engine.

    Args:
        version: of TensorRT, whole.
        model: serialised ONNX.
        options: how it is built.
        device: whom for.

    Raises:
        OutputError: others can write in the folder.
    """
    parts = (
        hashlib.sha256(model).hexdigest(),
        version,
        device.name,
        device.compute_capability,
        f"tf32={options.default_float}",
        f"dla={options.dla_core}",
    )
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", f"{version}-{device.name}-{device.compute_capability}")
    folder = _folder()
    return Kept(folder / f"{key}.engine", folder / f"timing-{plain}.cache")


def keep(path: Path, content: bytes) -> None:
    """Cache it whole, where that can be done: a full disk costs a rebuild, not the run."""
    with contextlib.suppress(EdgeqError, OSError):
        atomic_write(path, content)


def read_model(artifact: Path) -> bytes:
    """The ONNX file.

    Raises:
        ModelError: it is not there or cannot be read.
    """
    try:
        return artifact.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"there is no model file {artifact}", fix="check the path") from error
    except OSError as error:
        raise ModelError(
            f"{artifact} cannot be read: {error.strerror or error}", fix="check the path"
        ) from error


def _folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "edgeq" / "tensorrt"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
            raise OutputError(
                f"{folder} can be written by others, and engines are code",
                fix=f"chmod go-w {folder}, or set XDG_CACHE_HOME to a folder of your own",
            )
    return folder
