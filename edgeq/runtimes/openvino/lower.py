"""From QDQ or float ONNX to OpenVINO's intermediate representation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, OutputError
from edgeq.runtimes.base import Artifact, LowerOptions
from edgeq.runtimes.openvino.session import METADATA_KEY, import_openvino, one_line

__all__ = ["lower"]


def lower(model: bytes, folder: Path, options: LowerOptions) -> Artifact:
    """``NAME.xml`` and ``NAME.bin``.

    Inputs, outputs and their names stay the source's; its metadata goes into the model's runtime info.

    Args:
        model: serialised QDQ or float model.
        folder: where the artifact goes; it must exist.
        options: its name, and whether a float model's weights are stored in float16; OpenVINO leaves those of
            a model with roundings alone. Inputs and outputs stay float: it rounds them itself.

    Raises:
        ModelError: OpenVINO cannot convert the model.
        OutputError: it cannot be written.
    """
    ov = import_openvino()
    path = folder / f"{options.name}.xml"
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".lower-") as work:
            source = Path(work) / "source.onnx"
            source.write_bytes(model)
            _save(ov, source, Path(work) / path.name, model, options)
            # The .xml last: without it there is no artifact.
            weights = (Path(work) / path.with_suffix(".bin").name).replace(path.with_suffix(".bin"))
            (Path(work) / path.name).replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO {ov.__version__} cannot convert the model: {one_line(error)}{_nodes(error, model)}",
            fix="a newer OpenVINO may know the op; or keep it out of the model",
        ) from error
    return Artifact(path, (path, weights))


def _nodes(error: RuntimeError, model: bytes) -> str:
    """The first nodes of the ops that OpenVINO names as ``domain.Op``, in words; empty: it names none."""
    import onnx

    try:
        nodes = onnx.load_from_string(model).graph.node
    except Exception:  # protobuf's own error: what is wrong is said already
        return ""
    text = str(error)
    names = [
        node.name or node.output[0]
        for node in nodes
        if f"{node.domain or 'ai.onnx'}.{node.op_type}" in text or f" {node.op_type}," in text
    ]
    return f" (node {', '.join(names[:3])})" if names else ""


def _save(ov: Any, source: Path, path: Path, model: bytes, options: LowerOptions) -> None:
    converted = _converted(ov, source)
    _keep_metadata(converted, model)
    ov.save_model(converted, str(path), compress_to_fp16=options.float16_weights)


def _converted(ov: Any, source: Path) -> Any:
    """The model as ``ov.convert_model`` gives it.

    Its transformations matter: without them the same QDQ model lost 0.2 points more on YOLOX-Nano. They are
    called by themselves, since ``convert_model`` also reports to a statistics server on the Internet.
    """
    try:
        from openvino._offline_transformations import apply_moc_transformations
    except ImportError:
        return ov.convert_model(str(source))
    model = ov.Core().read_model(str(source))
    apply_moc_transformations(model, cf=False, smart_reshape=True)
    return model


def _keep_metadata(converted: Any, model: bytes) -> None:
    """The ONNX file's key-value pairs (class names, stride, ...) as runtime info."""
    import onnx

    for entry in onnx.load_from_string(model).metadata_props:
        converted.set_rt_info(entry.value, [METADATA_KEY, entry.key])
