"""The contract of every runtime; off macOS sessions are the reference interpreter's."""

import importlib

import pytest

from edgeq.errors import UnavailableError
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.coreml.session import INTERPRETED, open_interpreted
from tests.runtimes.contract import RuntimeContract


class TestCoreMlContract(RuntimeContract):
    name = "coreml"

    @pytest.fixture
    def session(self, runtime, artifact):
        options = SessionOptions(threads=2)
        if runtime.runs_here():
            return runtime.open_session(artifact.path, options=options)
        return open_interpreted(artifact.path, options)

    def test_the_session_factory_opens_sessions(self, runtime, artifact):
        if runtime.runs_here():
            super().test_the_session_factory_opens_sessions(runtime, artifact)
            return
        module, _, function = runtime.session_factory.partition(":")
        with pytest.raises(UnavailableError, match="macOS"):
            getattr(importlib.import_module(module), function)(artifact.path, SessionOptions())

    def test_interpreted_results_say_so(self, runtime, artifact):
        session = open_interpreted(artifact.path, SessionOptions())
        assert session.details["executed_by"] == INTERPRETED
        assert INTERPRETED in session.details["warning"]
