"""A stand-in for what coremltools has on macOS only: predictions and compute plans.

Predictions are the reference interpreter's, so a session around it computes the right thing; the shapes of
calls and answers are those of coremltools 9's own source.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import coremltools
import numpy as np

from edgeq.runtimes.coreml.interpret.program import Interpreter, load_program

RealModel = coremltools.models.MLModel


class MLNeuralEngineComputeDevice:
    pass


class MLCPUComputeDevice:
    pass


class FakeModel:
    """MLModel as on a Mac."""

    made: list[FakeModel] = []  # noqa: RUF012 - emptied by the fixture

    def __new__(cls, model, **options):
        # Saving goes through the real one.
        return RealModel(model, **options) if options.get("skip_model_load") else super().__new__(cls)

    def __init__(self, model, compute_units=None):
        self.path, self.compute_units = Path(model), compute_units
        self.real = RealModel(model, skip_model_load=True)
        self.given = []
        FakeModel.made.append(self)

    def get_spec(self):
        return self.real.get_spec()

    def get_compiled_model_path(self):
        return f"{self.path}.mlmodelc"

    def predict(self, data):
        self.given.append(data)
        (name,) = data
        value = data[name]
        if not isinstance(value, np.ndarray):  # a picture: RGB, and Core ML orders channels as declared
            order = self.real.get_spec().description.input[0].type.imageType.colorSpace
            pixels = np.asarray(value).astype(np.float32).transpose(2, 0, 1)[None]
            value = pixels[:, ::-1] if order == 30 else pixels
        return Interpreter(load_program(self.path)).run({name: np.ascontiguousarray(value)})


class FakePlan:
    """MLComputePlan: products of float on the CPU, all else on the Neural Engine; constants nowhere."""

    loaded: list[tuple[str, object]] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, package):
        operations = [
            SimpleNamespace(
                outputs=[SimpleNamespace(name=name) for name in entry.outputs],
                float_product=entry.kind == "conv" and entry.outputs[0] in ("stem",),
            )
            for entry in load_program(package).operations
        ]
        constant = SimpleNamespace(
            operator_name="const", outputs=[SimpleNamespace(name="c")], float_product=None
        )
        block = SimpleNamespace(operations=[constant, *operations])
        main = SimpleNamespace(block=block)
        self.model_structure = SimpleNamespace(program=SimpleNamespace(functions={"main": main}))

    @classmethod
    def load_from_path(cls, path, compute_units):
        cls.loaded.append((path, compute_units))
        return cls(Path(path.removesuffix(".mlmodelc")))

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        if operation.float_product is None:
            return None
        device = MLCPUComputeDevice() if operation.float_product else MLNeuralEngineComputeDevice()
        return SimpleNamespace(preferred_compute_device=device, supported_compute_devices=[device])
