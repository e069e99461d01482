"""A whole latency measurement, on sessions that compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edgeq.benchmark.course import Course, Entry, WholePath, run_course
from edgeq.benchmark.frames import ImageFeed
from edgeq.benchmark.steady import WarmUp
from edgeq.errors import SpecError
from edgeq.runtimes.base import SessionOptions
from edgeq.types import HeadFamily, HeadSpec, InputSpec, TensorInfo

SPEC = InputSpec("images", 16, 16)
HEAD = HeadSpec(HeadFamily.CLASSIFIER, "scores", ("a", "b"))
QUICK = WarmUp(max_s=0.05)


@dataclass
class FakeSession:
    shape: tuple[int, ...]
    seen: list[np.ndarray] = field(default_factory=list)
    details: Mapping[str, str] = field(default_factory=lambda: {"runtime": "fake"})
    outputs: tuple[TensorInfo, ...] = (TensorInfo("scores", (1, 2), "float32"),)

    @property
    def inputs(self):
        return (TensorInfo("images", self.shape, "float32"),)

    def infer(self, tensor):
        self.seen.append(tensor)
        return {"scores": np.array([[0.25, 0.75]], np.float32)}


@dataclass
class FakeRuntime:
    session: FakeSession
    opened: list[SessionOptions] = field(default_factory=list)
    session_factory: str = "no_such_module:open"

    def open_session(self, artifact, *, options):
        self.opened.append(options)
        return self.session


def entry(name, *, shape=(1, 3, 16, 16), spec=SPEC, threads=1):
    return Entry(name, Path("model"), FakeRuntime(FakeSession(shape)), SessionOptions(threads=threads), spec)


def course(*entries, images=(), read=lambda image: image, **more):
    options = {"duration_s": 0.05, "min_runs": 3, "warm_up": QUICK, "memory": False, **more}
    return Course(entries=entries, images=ImageFeed(images, read), **options)


def ignore(stage, done, total):
    pass


def test_loop_path_and_rate_of_real_images():
    told = []
    judged = entry("int8", threads=2)
    pictures = [np.full((20, 30, 3), value, np.uint8) for value in range(40)]
    outcome = run_course(
        course(
            entry("float"), judged, images=range(40), read=lambda index: pictures[index], baseline="float",
            path=WholePath("int8", SPEC, HEAD), rate_hz=200.0,
        ),
        progress=lambda stage, done, total: told.append(stage),
    )  # fmt: skip
    assert [found.name for found in outcome.report.contestants] == ["float", "int8"]
    assert [found.details["runtime"] for found in outcome.report.contestants] == ["fake", "fake"]
    assert outcome.report.speedup("int8").baseline == "float"
    names = [stage.name for stage in outcome.stages.stages]
    assert names == ["decode", "pre-process", "inference", "post-process"]
    assert len(outcome.stages.total.wall_ns) >= 3
    assert len(outcome.rate.response_ns) == 10
    assert judged.runtime.opened[0].threads == 2
    assert "whole path" in told
    assert outcome.remarks == ()
    # Eight inputs in the loop, 32 frames on the path, spread over all images.
    assert len({tensor.tobytes() for tensor in judged.runtime.session.seen}) > 8


def test_without_images_a_made_up_one_and_without_a_spec_noise():
    judged, other = entry("int8", shape=(1, 16, 16, 3)), entry("other", spec=None)
    outcome = run_course(course(judged, other, path=WholePath("int8", SPEC, HEAD)), progress=ignore)
    assert [stage.name for stage in outcome.stages.stages] == ["pre-process", "inference", "post-process"]
    assert {tensor.shape for tensor in judged.runtime.session.seen} == {(1, 16, 16, 3)}
    assert {tensor.shape for tensor in other.runtime.session.seen} == {(1, 3, 16, 16)}
    assert outcome.rate is None
    assert outcome.throughput == {}


def test_memory_that_cannot_be_measured_is_said():
    outcome = run_course(course(entry("int8"), memory=True), progress=ignore)
    assert outcome.stages is None
    assert outcome.report.contestant("int8").peak_memory_mb is None
    assert len(outcome.remarks) == 1
    assert "peak memory not measured" in outcome.remarks[0]


def test_what_does_not_fit_shows_before_anything_is_timed():
    judged = entry("int8", shape=(1, 3, 32, 32))
    with pytest.raises(SpecError, match="takes"):
        run_course(course(judged), progress=ignore)
    wrong = WholePath("int8", SPEC, HeadSpec(HeadFamily.YOLOV8, "boxes", ("a", "b")))
    judged = entry("int8")
    judged.runtime.session.outputs = (*judged.runtime.session.outputs, TensorInfo("more", (1, 9), "float32"))
    with pytest.raises(SpecError, match="no output 'boxes'"):
        run_course(course(judged, path=wrong), progress=ignore)
    assert judged.runtime.session.seen == []
