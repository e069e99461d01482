from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeq.data import stream
from edgeq.data.images import read_image
from edgeq.data.preprocess import preprocess
from edgeq.data.stream import iter_tensors, read_ahead
from edgeq.errors import DataError
from edgeq.types import InputSpec, Sample

from .conftest import make_picture, write_image

SPEC = InputSpec("x", 32, 32)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    paths = [write_image(tmp_path / f"{i:02}.png", make_picture(i, width=64, height=48)) for i in range(12)]
    return [Sample(path.name, path) for path in paths]


def loaders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("edgeq-images")]


@pytest.mark.parametrize("workers", [1, 4])
def test_order_and_content(samples: list[Sample], workers: int) -> None:
    loaded = list(iter_tensors(samples, SPEC, workers=workers))
    assert [sample for sample, _, _ in loaded] == samples
    for sample, tensor, geometry in loaded:
        expected, expected_geometry = preprocess(read_image(sample.path), SPEC)
        np.testing.assert_array_equal(tensor, expected)
        assert geometry == expected_geometry
    assert not loaders()


def test_broken_image_is_named_in_its_turn(samples: list[Sample]) -> None:
    samples[5].path.write_bytes(b"\x89PNG")
    seen = []
    with pytest.raises(DataError, match=r"05\.png"):
        for sample, _, _ in iter_tensors(samples, SPEC, workers=3):
            seen.append(sample.key)
    assert seen == [f"{i:02}.png" for i in range(5)]
    assert not loaders()


def test_closing_stops_the_threads(samples: list[Sample]) -> None:
    iterator = iter_tensors(samples, SPEC, workers=2)
    next(iterator)
    assert loaders()
    iterator.close()  # type: ignore[attr-defined]
    assert not loaders()


def test_reads_only_a_little_ahead(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = stream.read_image
    monkeypatch.setattr(stream, "read_image", lambda path: read.append(path) or original(path))
    iterator = iter_tensors(samples, SPEC, workers=2)
    next(iterator)
    time.sleep(0.2)
    assert len(read) <= 5
    iterator.close()  # type: ignore[attr-defined]


def test_nothing_and_no_workers(samples: list[Sample]) -> None:
    assert list(iter_tensors([], SPEC)) == []
    with pytest.raises(ValueError, match="workers"):
        iter_tensors(samples, SPEC, workers=0)


def test_anything_is_read_ahead_in_order_and_errors_come_in_their_turn():
    def load(number):
        if number == 3:
            raise ValueError("three")
        return number * 10

    ahead = read_ahead(range(6), load, workers=2)
    assert [next(ahead) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(ValueError, match="three"):
        next(ahead)
