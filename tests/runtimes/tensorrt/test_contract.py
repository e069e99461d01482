"""The contract of every runtime, as far as it can be kept on a machine without TensorRT."""

import pytest

from edgeq.runtimes.base import SessionOptions
from tests.runtimes.contract import RuntimeContract


def need_tensorrt(runtime):
    if not runtime.runs_here():
        pytest.skip("TensorRT does not run on this machine")


class TestTensorRTContract(RuntimeContract):
    name = "tensorrt"

    @pytest.fixture
    def session(self, runtime, artifact):
        need_tensorrt(runtime)
        return runtime.open_session(artifact.path, options=SessionOptions(threads=2))

    def test_probe_knows_the_version_and_never_raises(self, runtime):
        assert runtime.probe().features["architecture"]
        need_tensorrt(runtime)
        super().test_probe_knows_the_version_and_never_raises(runtime)

    def test_the_session_factory_opens_sessions(self, runtime, artifact):
        need_tensorrt(runtime)
        super().test_the_session_factory_opens_sessions(runtime, artifact)
