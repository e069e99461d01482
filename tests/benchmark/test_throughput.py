import pytest

from edgeq.benchmark.throughput import measure_throughput


class Clock:
    def __init__(self):
        self.now_ns = 0

    def __call__(self):
        return self.now_ns


class Session:
    """Each inference takes 10 ms, so many at once as it says."""

    def __init__(self, clock, in_flight):
        self.clock, self.in_flight, self.batches = clock, in_flight, []

    def infer_all(self, tensors):
        seen = []
        for count, tensor in enumerate(tensors, start=1):
            seen.append(tensor)
            self.clock.now_ns += 10_000_000 if count % self.in_flight == 0 else 0
        self.batches.append(seen)


def test_inferences_are_counted_until_the_last_is_done():
    clock = Clock()
    session = Session(clock, 4)
    found = measure_throughput(session, ["a", "b", "c"], duration_s=0.1, clock_ns=clock)
    assert session.batches[0] == ["a", "b", "c", "a"]  # warms every request up
    assert found.inferences == len(session.batches[1]) == 40
    assert found.per_second == pytest.approx(400)
    assert found.to_json() == {
        "inferences_per_s": 400.0, "inference_count": 40, "elapsed_ms": 100.0, "in_flight": 4,
    }  # fmt: skip


def test_one_round_of_requests_at_least():
    clock = Clock()
    assert measure_throughput(Session(clock, 3), ["a"], duration_s=0.0, clock_ns=clock).inferences == 3


def test_no_inputs():
    with pytest.raises(ValueError, match="no inputs"):
        measure_throughput(Session(Clock(), 1), [], duration_s=1.0)
