"""A session of Core ML through coremltools, on macOS; and the reference interpreter's, on any system.

Not measured: written against coremltools' documented interface (``MLModel.predict``, ``ComputeUnit``) and
tested with a stand-in for it, since Core ML is part of macOS. Device side: numpy and coremltools only.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import InputError, ModelError, UnavailableError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.coreml.native import import_coremltools, predicts_here
from edgeq.runtimes.coreml.package import METADATA_NAME, check_package
from edgeq.types import TensorInfo

__all__ = ["INTERPRETED", "UNITS", "CoreMlSession", "compute_units", "open_interpreted", "open_session"]

INTERPRETED = "interpreted (not Core ML)"
"""Said wherever the reference interpreter's results appear."""
UNITS = {"all": "ALL", "cpu-and-ne": "CPU_AND_NE", "cpu-and-gpu": "CPU_AND_GPU", "cpu-only": "CPU_ONLY"}
"""edgeq's names of compute units -> coremltools'."""
_FIX = "lower the model anew with this edgeq"


@dataclass(frozen=True)
class _Image:
    """How the package's image input becomes the tensor: ``scale * pixel + bias``."""

    bgr: bool
    scale: float
    bias: tuple[float, float, float]

    def pixels(self, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """0..255 in whole steps, (1, 3, h, w), in the model's channel order."""
        bias = np.asarray(self.bias, np.float32).reshape(1, 3, 1, 1)
        values = (np.asarray(tensor, np.float32) - bias) / np.float32(self.scale)
        return np.asarray(np.clip(np.rint(values), 0, 255), np.float32)


@dataclass(frozen=True)
class _Contents:
    """What a package says of itself."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    native: Mapping[str, str]
    """Output as the source names it -> as the program does."""
    image: _Image | None
    precision: str
    metadata: Mapping[str, str]


class CoreMlSession:
    """A loaded package; see `edgeq.runtimes.base.Session`.

    Callers give the normalised tensor and get float32. A package with an image input gets it as pixels:
    exact for images, whose pixels are whole numbers.
    """

    def __init__(
        self,
        contents: _Contents,
        predict: Callable[[npt.NDArray[Any]], Mapping[str, Any]],
        details: Mapping[str, str],
    ) -> None:
        self._contents, self._predict, self._details = contents, predict, dict(details)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The package's inputs; an image as the tensor that is made of it."""
        return self._contents.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The package's outputs under the source's names."""
        return self._contents.outputs

    @property
    def details(self) -> Mapping[str, str]:
        """Version, compute units, precision and kind of input."""
        return self._details

    @property
    def metadata(self) -> Mapping[str, str]:
        """The key-value pairs in the package: the exporter's, and class names."""
        return self._contents.metadata

    def infer(self, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Outputs, float32, by name for one input tensor.

        Raises:
            ModelError: the tensor does not fit the model, or Core ML fails.
        """
        (info,) = self.inputs
        if tuple(tensor.shape) != info.shape:
            raise ModelError(
                f"inference failed: input {info.name!r} takes {list(info.shape)}, not {list(tensor.shape)}"
            )
        try:
            found = self._predict(np.ascontiguousarray(tensor, np.float32))
            return {
                output.name: np.asarray(found[self._contents.native[output.name]], np.float32)
                for output in self.outputs
            }
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"inference failed: {error}") from error


def compute_units(options: SessionOptions) -> str:
    """edgeq's name of the units to run on: the options', else all.

    Raises:
        InputError: there are none of that name.
    """
    name = options.compute_units or "all"
    if name not in UNITS:
        raise InputError(f"there are no compute units {name!r}", fix=f"one of {', '.join(UNITS)}")
    return name


def open_session(artifact: Path, options: SessionOptions) -> CoreMlSession:
    """The package, compiled by Core ML for the chosen compute units.

    ``options.threads`` changes nothing: Core ML decides that itself. Nor does ``options.default_float``: the
    precision is the package's own.

    Raises:
        ModelError: the package is missing or damaged, or Core ML cannot load it.
        UnavailableError: this is no Mac, or coremltools is not installed.
    """
    check_package(artifact)
    units = compute_units(options)
    tools = import_coremltools()
    if not predicts_here():
        raise UnavailableError(
            "Core ML is part of macOS and does not run on this machine",
            fix="run this on a Mac; here, accuracy of a bundle is simulated with its QDQ model",
        )
    said: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = tools.models.MLModel(
                str(artifact), compute_units=getattr(tools.ComputeUnit, UNITS[units])
            )
        # Where Core ML refuses, coremltools only warns, and all else fails later with a plain Exception.
        model.get_compiled_model_path()
        contents = _contents(model.get_spec())
    except Exception as error:  # Core ML's own errors come as RuntimeError, protobuf's as their own
        causes = [str(entry.message) for entry in said if issubclass(entry.category, RuntimeWarning)]
        raise ModelError(
            f"Core ML cannot load {artifact}: {causes[-1] if causes else error}",
            fix="check that it is whole, that this macOS is 14 or later, and that coremltools has Core ML's "
            "part for this Python: python -c 'import coremltools.libcoremlpython'",
        ) from error
    details = {
        "runtime": "coreml",
        "version": str(tools.__version__),
        "compute_units": units,
        "threads": str(options.threads),
        "threads_used": "Core ML decides",
        "float_precision": contents.precision,
        "input": "image" if contents.image is not None else "tensor",
    }
    name = contents.inputs[0].name

    def predict(tensor: npt.NDArray[Any]) -> Mapping[str, Any]:
        given = tensor if contents.image is None else _picture(contents.image, tensor)
        found: Mapping[str, Any] = model.predict({name: given})
        return found

    return CoreMlSession(contents, predict, details)


def open_interpreted(artifact: Path, options: SessionOptions) -> CoreMlSession:
    """The package in the reference interpreter: for accuracy on a machine without Core ML, never for speed.

    Raises:
        ModelError: the package is missing or damaged.
        UnavailableError: coremltools is not installed.
    """
    from edgeq.runtimes.coreml.interpret.program import Interpreter, load_program

    program = load_program(artifact)
    tools = import_coremltools()
    contents = _contents(tools.models.MLModel(str(artifact), skip_model_load=True).get_spec())
    interpreter = Interpreter(program)
    name = contents.inputs[0].name
    details = {
        "runtime": "coreml",
        "version": str(tools.__version__),
        "executed_by": INTERPRETED,
        "threads": str(options.threads),
        "float_precision": contents.precision,
        "warning": f"{INTERPRETED}: accuracy only, its time says nothing of any device",
    }

    def predict(tensor: npt.NDArray[Any]) -> Mapping[str, Any]:
        fed = tensor if contents.image is None else contents.image.pixels(tensor)
        return interpreter.run({name: fed})

    return CoreMlSession(contents, predict, details)


def _picture(image: _Image, tensor: npt.NDArray[Any]) -> Any:
    """Pillow's image of the pixels, which is what ``predict`` takes for an image input; always RGB.

    Raises:
        UnavailableError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UnavailableError(
            "the package takes images, which Core ML gets through Pillow", fix="pip install pillow"
        ) from error
    pixels = image.pixels(tensor)[0].transpose(1, 2, 0).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1] if image.bgr else pixels))


def _contents(spec: Any) -> _Contents:
    """What a package's description says.

    Raises:
        ModelError: it is no model with one image-like input.
    """
    metadata = dict(spec.description.metadata.userDefined)
    own = _own(metadata.pop(METADATA_NAME, "{}"))
    if len(spec.description.input) != 1:
        raise ModelError(
            f"the package has {len(spec.description.input)} inputs, edgeq gives one image", fix=_FIX
        )
    feature = spec.description.input[0]
    image = _image(own.get("image"))
    if feature.type.WhichOneof("Type") == "imageType":
        size = feature.type.imageType
        shape: tuple[int, ...] = (1, 3, int(size.height), int(size.width))
        if image is None:
            raise ModelError(
                "the package takes images and does not say how they become its tensor",
                fix="lower the model with edgeq, or give it a tensor input",
            )
    else:
        shape, image = tuple(int(side) for side in feature.type.multiArrayType.shape), None
    names = own.get("outputs")
    known = {str(value): str(key) for key, value in names.items()} if isinstance(names, dict) else {}
    outputs, native = [], {}
    for entry in spec.description.output:
        name = known.get(entry.name, entry.name)
        sizes = tuple(int(side) for side in entry.type.multiArrayType.shape)
        outputs.append(TensorInfo(name, sizes, "float32"))
        native[name] = entry.name
    return _Contents(
        (TensorInfo(feature.name, shape, "float32"),), tuple(outputs), native, image,
        str(own.get("precision", "unknown"))[:16], metadata,
    )  # fmt: skip


def _own(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _image(data: Any) -> _Image | None:
    """Checked, since a package is untrusted.

    Raises:
        ModelError: numbers that are none.
    """
    if not isinstance(data, dict):
        return None
    try:
        scale, bias = float(data["scale"]), tuple(float(entry) for entry in data["bias"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError("the package's image scale and bias are damaged", fix=_FIX) from error
    if len(bias) != 3 or not np.isfinite([scale, *bias]).all() or scale == 0:
        raise ModelError("the package's image scale and bias are damaged", fix=_FIX)
    return _Image(data.get("color") == "bgr", scale, (bias[0], bias[1], bias[2]))
