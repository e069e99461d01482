"""An engine for this device: from the cache, or built by this device's own TensorRT. Device side.

The network is strongly typed: TensorRT takes each layer's type from the model and chooses none itself.
Source: TensorRT 10 and 11 Python API.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, UnavailableError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.tensorrt.cache import Device, Kept, keep, kept_for, read_model

__all__ = [
    "WORKSPACE_BYTES",
    "Built",
    "check_dla",
    "engine_bytes",
    "import_tensorrt",
    "load_engine",
    "new_network",
    "version_of",
]

WORKSPACE_BYTES = 1 << 30
_OLDEST = (10, 0)
_DLA_FROM = (11, 4)
"""Of explicit quantisation; the DLA of TensorRT 10 was made for calibrators, which edgeq does not use."""
_MOST_ERRORS = 3


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
    if version_of(str(tensorrt.__version__)) < _OLDEST:
        raise UnavailableError(
            f"TensorRT {tensorrt.__version__} has no strongly typed networks",
            fix="JetPack 6.1 or later brings TensorRT 10.3",
        )
    return tensorrt


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of ``10.3.0``."""
    numbers = [int(part) for part in re.findall(r"\d+", text)[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def engine_bytes(trt: Any, artifact: Path, options: SessionOptions, device: Device) -> Built:
    """The engine of a model for this device, from the cache where it is there.

    Raises:
        ModelError: TensorRT refuses the model.
        UnavailableError: a DLA core was asked for that TensorRT cannot use.
    """
    if options.dla_core is not None:
        check_dla(str(trt.__version__))
        _check_core(trt, options.dla_core)
    model = read_model(artifact)
    kept = kept_for(str(trt.__version__), model, options, device)
    with contextlib.suppress(OSError):
        return Built(kept.engine.read_bytes(), cached=True)
    plan = _build(trt, model, artifact, options, kept)
    keep(kept.engine, plan)
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
        model = read_model(artifact)
        kept_for(str(trt.__version__), model, options, device).engine.unlink(missing_ok=True)
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


def _build(trt: Any, model: bytes, artifact: Path, options: SessionOptions, kept: Kept) -> bytes:
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network, parser = new_network(trt, builder, model, artifact.name)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if not options.default_float:
        # Else float32 products are rounded to TF32 on Ampere and later.
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    known = b""
    with contextlib.suppress(OSError):
        known = kept.timing.read_bytes()
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        raise ModelError(f"TensorRT {trt.__version__} cannot build an engine of {artifact.name}")
    updated = config.get_timing_cache()
    if updated is not None:
        keep(kept.timing, bytes(updated.serialize()))
    return bytes(plan)


def check_dla(version: str) -> None:
    """Refuse the DLA where this TensorRT cannot use it for an explicitly quantised network.

    Raises:
        UnavailableError: it cannot.
    """
    if version_of(version) < _DLA_FROM:
        raise UnavailableError(
            f"TensorRT {version} runs no explicitly quantised network on the DLA",
            fix="TensorRT 11.4 with JetPack 7.2.2 on a Jetson AGX Orin does; or leave the DLA out",
        )


def _check_core(trt: Any, core: int) -> None:
    cores = int(trt.Builder(trt.Logger(trt.Logger.ERROR)).num_DLA_cores)
    if not 0 <= core < cores:
        raise UnavailableError(
            f"there is no DLA core {core}: this device has {cores}", fix="leave the DLA out"
        )


def _node_of(error: Any) -> str:
    name = getattr(error, "node_name", None)
    return f"at {name()}: " if callable(name) and name() else ""
