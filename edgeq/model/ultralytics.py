"""Ultralytics checkpoints. The only module that imports ``ultralytics``, which is AGPL-3.0.

A ``.pt`` file is a pickle: loading one runs code from it. Load only files that you trust.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from pathlib import Path

from edgeq.errors import ModelError, UnavailableError

__all__ = ["export_onnx"]

_OPSET = 17
_logger = logging.getLogger(__name__)


def export_onnx(checkpoint: Path, folder: Path, *, size: tuple[int, int] | None) -> Path:
    """Export a checkpoint to ONNX: float32, batch 1, static shape, without NMS.

    Args:
        checkpoint: an Ultralytics ``.pt`` file.
        folder: where the export goes; the user's own folder stays as it is.
        size: (height, width) in pixels, or None for the size that the model was trained at.

    Raises:
        UnavailableError: the ``yolo`` extra is not installed.
        ModelError: the file is not an Ultralytics checkpoint, or does not export.
    """
    # Ultralytics would otherwise install missing packages by itself in the middle of an export.
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    try:
        # Its log goes to the stdout of this moment, and stdout belongs to edgeq's result.
        with contextlib.redirect_stdout(sys.stderr):
            from ultralytics import YOLO
    except ImportError as error:
        raise UnavailableError(
            f"{checkpoint.name} is an Ultralytics checkpoint and the `yolo` extra is missing ({error})",
            fix='pip install "edgeq[yolo]" (AGPL-3.0), or export it to ONNX where Ultralytics is installed',
        ) from error
    _logger.info("exporting %s to ONNX with Ultralytics (AGPL-3.0)", checkpoint.name)
    local = folder / checkpoint.name
    shutil.copyfile(checkpoint, local)
    options = {} if size is None else {"imgsz": list(size)}
    with contextlib.redirect_stdout(sys.stderr):
        try:
            exported = YOLO(str(local)).export(
                format="onnx", opset=_OPSET, simplify=False, verbose=False, **options
            )
        except (
            Exception
        ) as error:  # whatever torch, pickle or Ultralytics raise, the checkpoint is what failed
            raise ModelError(
                f"Ultralytics cannot export {checkpoint.name}: {type(error).__name__}: {error}",
                fix="check that the file is an Ultralytics checkpoint and that its version is installed",
            ) from error
    return Path(str(exported))
