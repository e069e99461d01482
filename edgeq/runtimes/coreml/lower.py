"""From a float or QDQ model in ONNX to an ``.mlpackage``; builds on any system, needs no torch.

The way through: read, write a MIL program op by op from one table, let coremltools serialise it, check the
package, move it into place.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, OutputError
from edgeq.files import new_folder
from edgeq.runtimes.base import Artifact, LowerOptions
from edgeq.runtimes.coreml.compact import compact_package
from edgeq.runtimes.coreml.image import ImageInput, image_input
from edgeq.runtimes.coreml.native import import_coremltools
from edgeq.runtimes.coreml.package import METADATA_NAME, name_items_after_content, package_files
from edgeq.runtimes.coreml.program import Built, build
from edgeq.runtimes.coreml.source import Source, read_source

__all__ = ["lower", "save_program", "write_package"]


def lower(model: bytes, folder: Path, options: LowerOptions) -> Artifact:
    """The model as one ``.mlpackage`` folder, an mlprogram for iOS 17 and macOS 14 or later.

    A QDQ model becomes W8A8 where it rounds and float16 elsewhere; a float model float32, float16
    (``float16_weights`` or ``default_float``) or float16 with INT8 weights (``int8_weights``). The decoding
    of detections stays float32: box coordinates are pixels, and from 512 on float16 has steps of half of
    one. Where the input spec has one scale for all channels the input is an image, as cameras give it.

    Args:
        model: serialised QDQ or float model, as edgeq normalises it.
        folder: where the package goes; it must exist.
        options: name and precision.

    Raises:
        ModelError: an op that Core ML has not, or not in this form; nothing is written.
        OutputError: it cannot be written.
        UnavailableError: coremltools is not installed.
    """
    source = read_source(model)
    half = source.quantised or options.float16_weights or options.int8_weights or options.default_float
    return write_package(
        source,
        folder / f"{options.name}.mlpackage",
        half=half,
        int8_weights=options.int8_weights,
        image=image_input(options.input),
        labels=options.labels,
    )


def write_package(
    source: Source,
    path: Path,
    *,
    half: bool,
    int8_weights: bool = False,
    image: ImageInput | None = None,
    labels: tuple[str, ...] = (),
) -> Artifact:
    """The package of a model that has been read; raises as :func:`lower` does.

    Args:
        source: what to write.
        path: the package's folder; it must not exist.
        half: float16 but for the decoding; else float32.
        int8_weights: float weights are stored in INT8.
        image: what turns the pixels of an image input into the tensor; None: the input is a tensor.
        labels: class names for the metadata, where the source has none.
    """
    import_coremltools()
    built = build(source, half=half, int8_weights=int8_weights)
    save_program(source, built, path, half=half, image=image, labels=labels)
    return Artifact(path, package_files(path))


def save_program(
    source: Source,
    built: Built,
    path: Path,
    *,
    half: bool,
    image: ImageInput | None = None,
    labels: tuple[str, ...] = (),
) -> None:
    """The package's folder, whole or not at all; arguments as :func:`write_package` has them."""
    tools = import_coremltools()
    with tempfile.TemporaryDirectory(prefix="edgeq-coreml-") as work:
        made = Path(work) / path.name
        _save(tools, built, made, image, _metadata(source, built, half, image, labels))
        compact_package(made)
        name_items_after_content(made)
        with new_folder(path, force=True) as target:
            shutil.copytree(made, target, dirs_exist_ok=True)


def _save(tools: Any, built: Built, path: Path, image: ImageInput | None, metadata: dict[str, str]) -> None:
    """Serialise with coremltools; its passes only settle types, names and the image's scale and bias.

    Raises:
        ModelError: coremltools refuses the program.
    """
    if image is not None:
        built.program.functions["main"].set_input_types((image.native(tools, built),))
    try:
        # Its progress bars belong to no command of ours.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            converted = tools.convert(
                built.program,
                source="milinternal",
                convert_to="mlprogram",
                minimum_deployment_target=tools.target.iOS17,
                pass_pipeline=tools.PassPipeline.EMPTY,
                skip_model_load=True,
            )
            converted.short_description = "edgeq"
            converted.user_defined_metadata.update(metadata)
            converted.save(str(path))
    except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"coremltools cannot write this model: {error}", fix="please report it with the model"
        ) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", fix="free some space") from error


def _metadata(
    source: Source, built: Built, half: bool, image: ImageInput | None, labels: tuple[str, ...]
) -> dict[str, str]:
    """The source's own key-value pairs, class names in the form of Ultralytics' exports, and edgeq's."""
    names = {"names": str(dict(enumerate(labels)))} if labels else {}
    own = {
        "schema": 2,
        "precision": "float16" if half else "float32",
        "outputs": built.outputs,
        "layers": {name: node for name, node in built.layers.items() if name != node},
        "image": None if image is None else image.to_json(),
    }
    return {**names, **source.metadata, METADATA_NAME: json.dumps(own, separators=(",", ":"), sort_keys=True)}
