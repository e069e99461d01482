"""An engine for this device: from the cache, or built by this device's own TensorRT. Device side.

An engine fits one TensorRT version and one kind of GPU, so it is cached under a hash of the model, of
both and of how it was built, and never leaves the device. The network is strongly typed: TensorRT takes
each layer's type from the model and chooses none itself. Source: TensorRT 10 and 11 Python API.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError, ModelError, OutputError, UnavailableError
from edgeq.files import atomic_write
from edgeq.runtimes.base import SessionOptions

__all__ = ["Built", "Device", "engine_bytes", "import_tensorrt", "load_engine", "new_network", "version_of"]

_WORKSPACE_BYTES = 1 << 30
_OLDEST = (10, 0)
_DLA_FROM = (11, 4)
"""Of explicit quantisation; the DLA of TensorRT 10 was made for calibrators, which edgeq does not use."""
_MOST_ERRORS = 3


@dataclass(frozen=True)
class Device:
    """What an engine is tied to."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Built:
    """An engine and where it came from."""

    plan: bytes
    cached: bool


def import_tensorrt() -> Any:
    """The module.

    Raises:
        UnavailableError: it is not installed, does not load, or is too old.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise UnavailableError(
            f"TensorRT's Python module cannot be loaded: {error}",
            fix="on a Jetson: sudo apt install python3-libnvinfer, and make the virtual environment with "
            "--system-site-packages; elsewhere: pip install tensorrt",
        ) from error
    if version_of(tensorrt) < _OLDEST:
        raise UnavailableError(
            f"TensorRT {tensorrt.__version__} has no strongly typed networks",
            fix="JetPack 6.1 or later brings TensorRT 10.3",
        )
    return tensorrt


def version_of(trt: Any) -> tuple[int, int]:
    """(major, minor)"""
    numbers = [int(part) for part in re.findall(r"\d+", str(trt.__version__))[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def engine_bytes(trt: Any, artifact: Path, options: SessionOptions, device: Device) -> Built:
    """The engine of a model for this device, from the cache where it is there.

    Raises:
        ModelError: TensorRT refuses the model.
        UnavailableError: a DLA core was asked for that TensorRT cannot use.
    """
    _check_dla(trt, options)
    model = _read(artifact)
    folder = _cache_folder()
    path = folder / f"{_key(trt, model, options, device)}.engine"
    with contextlib.suppress(OSError):
        return Built(path.read_bytes(), cached=True)
    plan = _build(trt, model, artifact, options, folder / _timing_name(trt, device))
    _keep(path, plan)
    return Built(plan, cached=False)


def load_engine(trt: Any, artifact: Path, options: SessionOptions, device: Device) -> tuple[Any, bool]:
    """(engine, whether it came from the cache); a cached one that does not load is built anew.

    Raises:
        ModelError: TensorRT refuses the model, or cannot load what it built.
        UnavailableError: a DLA core was asked for that TensorRT cannot use.
    """
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    if options.dla_core is not None:
        runtime.DLA_core = options.dla_core
    built = engine_bytes(trt, artifact, options, device)
    engine = runtime.deserialize_cuda_engine(built.plan)
    if engine is None and built.cached:
        model = _read(artifact)
        (_cache_folder() / f"{_key(trt, model, options, device)}.engine").unlink(missing_ok=True)
        built = engine_bytes(trt, artifact, options, device)
        engine = runtime.deserialize_cuda_engine(built.plan)
    if engine is None:
        raise ModelError(
            f"TensorRT {trt.__version__} cannot load the engine that it built of {artifact.name}"
        )
    return engine, built.cached


def new_network(trt: Any, builder: Any, model: bytes, name: str) -> tuple[Any, Any]:
    """(strongly typed network, parser) of an ONNX model; the parser holds its weights, so keep it.

    Raises:
        ModelError: the parser refuses it, with its own words and the node.
    """
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(min(parser.num_errors, _MOST_ERRORS))]
        said = "; ".join(f"{_node_of(error)}{' '.join(str(error.desc()).split())}" for error in errors)
        raise ModelError(
            f"TensorRT {trt.__version__} refuses {name}: {said}",
            fix="'edgeq audit' on a machine with onnx lists the rules that it breaks",
        )
    return network, parser


def _build(trt: Any, model: bytes, artifact: Path, options: SessionOptions, timing: Path) -> bytes:
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network, parser = new_network(trt, builder, model, artifact.name)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if not options.default_float:
        # Else float32 products are rounded to TF32 on Ampere and later.
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    known = b""
    with contextlib.suppress(OSError):
        known = timing.read_bytes()
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        raise ModelError(f"TensorRT {trt.__version__} cannot build an engine of {artifact.name}")
    updated = config.get_timing_cache()
    if updated is not None:
        _keep(timing, bytes(updated.serialize()))
    return bytes(plan)


def _check_dla(trt: Any, options: SessionOptions) -> None:
    if options.dla_core is None:
        return
    if version_of(trt) < _DLA_FROM:
        raise UnavailableError(
            f"TensorRT {trt.__version__} runs no explicitly quantised network on the DLA",
            fix="TensorRT 11.4 with JetPack 7.2.2 on a Jetson AGX Orin does; or leave the DLA out",
        )
    cores = int(trt.Builder(trt.Logger(trt.Logger.ERROR)).num_DLA_cores)
    if not 0 <= options.dla_core < cores:
        raise UnavailableError(
            f"there is no DLA core {options.dla_core}: this device has {cores}", fix="leave the DLA out"
        )


def _read(artifact: Path) -> bytes:
    try:
        return artifact.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"there is no model file {artifact}", fix="check the path") from error
    except OSError as error:
        raise ModelError(
            f"{artifact} cannot be read: {error.strerror or error}", fix="check the path"
        ) from error


def _cache_folder() -> Path:
    """Of this user alone: an engine is code."""
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


def _keep(path: Path, content: bytes) -> None:
    """Cache, where that can be done: a full disk costs a rebuild, not the run."""
    with contextlib.suppress(EdgeqError, OSError):
        atomic_write(path, content)


def _key(trt: Any, model: bytes, options: SessionOptions, device: Device) -> str:
    parts = (
        hashlib.sha256(model).hexdigest(),
        str(trt.__version__),
        device.name,
        device.compute_capability,
        f"tf32={options.default_float}",
        f"dla={options.dla_core}",
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]


def _timing_name(trt: Any, device: Device) -> str:
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", f"{trt.__version__}-{device.name}-{device.compute_capability}")
    return f"timing-{plain}.cache"


def _node_of(error: Any) -> str:
    name = getattr(error, "node_name", None)
    return f"at {name()}: " if callable(name) and name() else ""
