"""What every runtime's adapter has to keep; a subclass names its runtime and is a test of its own."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli.conftest import make_detector
from onnx import TensorProto, helper

from edgeq.errors import EdgeqError, ModelError, UnavailableError
from edgeq.model.fitting import fit_input, fit_specs
from edgeq.model.source import load
from edgeq.runtimes import load_runtime
from edgeq.runtimes.base import LayerPrecision, LowerOptions, SessionOptions
from edgeq.types import ModelPrecision

ROOT = Path(__file__).parents[2]
LAYERS = {"stem", "down", "depth", "predict"}
"""Convolutions of the detector."""


def unknown_op_model() -> bytes:
    """A model with an operator that nobody has."""
    node = helper.make_node("Bend", ["x"], ["y"], name="bend", domain="test.example")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("test.example", 1)]
    model = helper.make_model(graph, opset_imports=sets)
    model.ir_version = 8
    return model.SerializeToString()


class RuntimeContract:
    """Subclass it as ``Test...`` with the name of a runtime."""

    name = ""
    refuses_unknown_ops = True
    """Whether `lower` looks into the model: False where the artifact is the model itself."""

    @pytest.fixture
    def runtime(self):
        try:
            return load_runtime(self.name)
        except UnavailableError as error:
            pytest.skip(str(error))

    @pytest.fixture
    def float_model(self, tmp_path):
        path = tmp_path / "source.onnx"
        onnx.save(make_detector(), path)
        return load(path)

    @pytest.fixture
    def artifact(self, runtime, float_model, tmp_path):
        folder = tmp_path / "lowered"
        folder.mkdir()
        return runtime.lower(float_model.onnx_bytes, folder, options=LowerOptions())

    @pytest.fixture
    def session(self, runtime, artifact):
        return runtime.open_session(artifact.path, options=SessionOptions(threads=2))

    @staticmethod
    def tensor(session, model):
        shape = fit_input(model.input, session.inputs).shape
        return np.random.default_rng(0).random(shape).astype(np.float32)

    def test_artifact_lies_in_the_folder_under_its_name(self, runtime, artifact):
        assert artifact.path.stem.startswith("model")
        assert artifact.path.suffix in runtime.artifact_suffixes
        assert all(file.is_file() for file in artifact.files)
        assert artifact.size_mb > 0

    def test_inference_is_float32_by_name_and_repeats(self, session, float_model):
        tensor = self.tensor(session, float_model)
        first = session.infer(tensor)
        assert list(first) == [info.name for info in session.outputs] == ["output0"]
        assert first["output0"].dtype == np.float32
        assert first["output0"].shape == session.outputs[0].shape
        np.testing.assert_array_equal(session.infer(tensor)["output0"], first["output0"])

    def test_it_computes_what_the_source_does(self, session, float_model, tmp_path):
        tensor = self.tensor(session, float_model)
        path = tmp_path / "reference.onnx"
        path.write_bytes(float_model.onnx_bytes)
        reference = load_runtime("onnxruntime").open_session(path, options=SessionOptions())
        wanted = tensor if tensor.shape == float_model.input.shape else tensor.transpose(0, 3, 1, 2)
        expected = reference.infer(np.ascontiguousarray(wanted))["output0"]
        np.testing.assert_allclose(session.infer(tensor)["output0"], expected, rtol=1e-3, atol=1e-3)

    def test_details_say_what_ran(self, session):
        assert session.details["runtime"] == self.name
        assert session.details["version"]
        assert session.details["threads"] == "2"

    def test_wrong_inputs_and_files_are_model_errors(self, runtime, session, artifact, float_model, tmp_path):
        with pytest.raises(ModelError):
            session.infer(np.zeros((1, 5, 7, 2), np.float32))
        suffix = artifact.path.suffix
        if artifact.path.is_dir():
            pytest.skip("the artifact is a folder")
        bad = tmp_path / f"bad{suffix}"
        for content in (b"", b"no model", artifact.path.read_bytes()[:200]):
            bad.write_bytes(content)
            with pytest.raises(ModelError, match="bad"):
                runtime.open_session(bad, options=SessionOptions())
        with pytest.raises(ModelError, match="no model file"):
            runtime.open_session(tmp_path / f"none{suffix}", options=SessionOptions())

    def test_audit_lists_every_layer_under_its_own_name(self, runtime, artifact):
        report = runtime.audit(artifact.path, options=SessionOptions(), reasons={"stem": "because"})
        layers = {layer.name: layer for layer in report.compute_layers}
        assert set(layers) == LAYERS
        assert {layer.precision for layer in layers.values()} == {LayerPrecision.FLOAT}
        assert layers["stem"].reason == "because"
        assert all(layer.reason and layer.kernel for layer in layers.values())
        assert report.int8_compute_count == 0

    def test_probe_knows_the_version_and_never_raises(self, runtime):
        report = runtime.probe()
        assert report.runtime == self.name
        assert report.version
        assert report.features["architecture"]

    def test_the_session_factory_opens_sessions(self, runtime, artifact):
        module, _, function = runtime.session_factory.partition(":")
        made = getattr(importlib.import_module(module), function)(artifact.path, SessionOptions())
        assert made.outputs[0].name == "output0"

    def test_int8_comes_first_among_the_precisions(self, runtime):
        assert runtime.precisions[0] is ModelPrecision.INT8
        assert isinstance(runtime.integer_io, bool)

    def test_an_interface_that_is_kept_is_the_float_models(self, runtime, session, float_model):
        if not getattr(runtime, "keeps_interface", False):
            pytest.skip("artifacts of this runtime may have another interface")
        fitted = fit_specs(float_model.input, float_model.head, session.inputs, session.outputs)
        assert fitted == (float_model.input, float_model.head)

    def test_a_failed_lowering_leaves_nothing_behind(self, runtime, tmp_path):
        if not self.refuses_unknown_ops:
            pytest.skip("this runtime's artifact is the model itself")
        folder = tmp_path / "failed"
        folder.mkdir()
        with pytest.raises(EdgeqError, match="bend"):
            runtime.lower(unknown_op_model(), folder, options=LowerOptions())
        assert list(folder.iterdir()) == []

    def test_loading_it_imports_nothing_heavy(self):
        code = (
            "import sys; from edgeq.runtimes import load_runtime\n"
            f"load_runtime({self.name!r}, installed=False)\n"
            "heavy = {'onnx', 'numpy', 'onnxruntime', 'ai_edge_litert', 'tflite_runtime'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
