"""Devices that misbehave, played by functions: each ends in a clear error, and nothing is believed."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from edgeq.device.agent.wire import MAGIC, MAX_LINE_BYTES, PROTOCOL, line_of, message_of, text_of_array
from edgeq.device.answers import Facts, parse
from edgeq.device.client import AgentError, Device, Upload
from edgeq.device.errors import DeviceError, LinkLost
from edgeq.device.fake import FakeLink
from edgeq.device.latency import BenchOrder, Entrant, bench_on
from edgeq.device.models import DeviceModel
from edgeq.device.package import build_agent
from edgeq.device.results import prediction
from edgeq.device.wheels import platform_of
from edgeq.device.worker import Worker
from edgeq.types import HeadFamily, HeadSpec, PostProcess

HELLO = {
    "magic": MAGIC,
    "protocol": PROTOCOL,
    "agent": "",
    "python": "3.11.2",
    "machine": "aarch64",
    "pid": 7,
}
PROBE = {
    "system": "Linux", "machine": "aarch64", "python": "/usr/bin/python3", "version": [3, 11, 2], "bits": 64,
    "libc": ["glibc", "2.36"], "root": "/edgeq", "agent": False, "setup": None,
}  # fmt: skip


def device(answers=None, *, probe=None, hello=HELLO, noise=b"", **options) -> FakeLink:
    """A fake device; ``answers``: operation -> bytes, messages without id, pauses (float), exit status."""

    def behave(script, stdin, stdout):
        if not script.startswith("exec "):
            stdout.write(b"edgeq-probe " + json.dumps({**PROBE, **(probe or {})}).encode() + b"\n")
            return 0
        stdout.write(noise)
        if hello is not None:
            stdout.write(line_of(hello))
        while line := stdin.readline():
            request = message_of(line)
            if request["op"] == "beat":
                continue
            answer = (answers or {}).get(request["op"], [])
            for entry in answer(request) if callable(answer) else answer:
                if isinstance(entry, int):
                    return entry
                if isinstance(entry, float):
                    time.sleep(entry)
                    continue
                stdout.write(entry if isinstance(entry, bytes) else line_of({"id": request["id"], **entry}))
        return 0

    return FakeLink(behave, **options)


def fails(link: FakeLink, operation: str = "facts", **options) -> DeviceError:
    with pytest.raises(DeviceError) as failure, Device(link, **options) as opened:
        opened.request(operation, {})
    assert failure.value.exit_code == 4
    return failure.value


def test_the_agent_is_sent_when_it_is_not_there():
    link = device({"facts": [{"kind": "result", "data": 1}]})
    with Device(link) as opened:
        assert opened.request("facts", {}) == 1
    assert list(link.files.values()) == [build_agent().content]
    link = device({"facts": [{"kind": "result", "data": 1}]}, probe={"agent": True})
    with Device(link) as opened:
        opened.request("facts", {})
    assert link.files == {}


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"python": None, "version": None}, "there is no Python"),
        ({"version": [3, 8, 10]}, "its Python is 3.8.10"),
        ({"version": [2, 7, 18]}, "its Python is 2.7.18"),
        ({"version": "new"}, "not one that an agent gives"),
    ],
)
def test_a_device_without_a_fit_python(probe, words):
    assert words in fails(device(probe=probe)).message


def test_a_full_disk():
    assert "No space left" in fails(device(full=True)).message


def test_an_agent_of_another_protocol():
    error = fails(device(hello={**HELLO, "protocol": PROTOCOL + 1}))
    assert "protocol" in error.message
    assert "device clean" in error.fix


def test_a_missing_numpy_leads_to_setup():
    link = device(hello=None, stderr="Traceback\nModuleNotFoundError: No module named 'numpy'")
    link._behaviour = _ends_without_hello(link._behaviour)
    error = fails(link)
    assert "no module numpy" in error.message
    assert error.fix == "edgeq device setup fake"


def _ends_without_hello(behave):
    def once(script, stdin, stdout):
        return 1 if script.startswith("exec ") else behave(script, stdin, stdout)

    return once


def test_noise_before_the_hello_is_skipped_but_not_without_end():
    link = device({"facts": [{"kind": "result", "data": 1}]}, noise=b"Welcome\nLast login: never\n")
    with Device(link) as opened:
        assert opened.request("facts", {}) == 1
    assert "silent" in fails(device(noise=b"noise\n" * 1000)).fix


@pytest.mark.parametrize(
    "garbage",
    [
        b"Segmentation fault\n",
        b'{"id": 1, "kind": "result", "data": NaN}\n',
        b"[1, 2]\n",
        b"\xff\xfe\x00\n",
        b'{"id": 1, "kind": ' + b"[" * 100_000 + b"\n",
        b"x" * (MAX_LINE_BYTES + 10) + b"\n",
        line_of({"id": 99, "kind": "result", "data": {}}),
        line_of({"id": 1, "kind": "surprise"}),
        line_of({"id": 1, "kind": "error", "code": 5, "message": None}),
    ],
)
def test_garbage_in_the_agents_output(garbage):
    assert "garbage" in fails(device({"facts": [garbage]})).message


def test_what_is_no_number_or_no_text_is_not_facts():
    for data in (None, 5, {}, {"machine": {}}, {"machine": "x" * 5000}):
        with pytest.raises(DeviceError, match="not one that an agent gives"):
            parse(Facts, data, "fake")


@pytest.mark.parametrize(
    ("status", "words"), [(137, "was killed"), (255, "connection was lost"), (3, "status 3")]
)
def test_an_agent_that_ends_is_lost(status, words):
    error = fails(device({"facts": [status]}))
    assert isinstance(error, LinkLost)
    assert words in error.message


def test_silence_is_noticed():
    error = fails(device({"facts": [1.5]}), silence_s=0.3)
    assert isinstance(error, LinkLost)
    assert "nothing was heard" in error.message


def test_an_agents_error_is_shown_with_its_fix():
    link = device(
        {"facts": [{"kind": "error", "code": "unavailable", "message": "no onnxruntime", "fix": "pip"}]}
    )
    error = fails(link)
    assert isinstance(error, AgentError)
    assert "no onnxruntime" in error.message
    assert "edgeq device setup fake" in error.fix


def test_an_unreachable_device_is_not_tried_again():
    link = device(refuse=[LinkLost("down")] * 5)
    with pytest.raises(LinkLost, match="down"), Worker(link, pauses_s=(0.01,) * 3):
        pass
    assert link.opened == 1


def test_a_device_that_asks_for_files_that_were_not_offered(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    for missing in ([[5, 0]], [[0, 9]], [[-1, 0]], "all"):
        link = device({"have": [{"kind": "result", "data": {"missing": missing}}]})
        with pytest.raises(DeviceError), Device(link) as opened:
            opened.upload([Upload(path, "0" * 64, 1)])


HEAD = HeadSpec(HeadFamily.YOLOV8, "output0", ("bolt", "nut"))
GOOD = {
    "image": "a" * 64, "boxes": text_of_array(np.array([[1, 2, 30, 40]], np.float32)),
    "scores": text_of_array(np.array([0.5], np.float32)), "class_ids": [1],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": "!!!"},
        {"boxes": text_of_array(np.array([1, 2, 3], np.float32))},
        {"boxes": text_of_array(np.array([[1, 2, 300, 40]], np.float32))},
        {"boxes": text_of_array(np.array([[np.nan, 2, 30, 40]], np.float32))},
        {"scores": text_of_array(np.array([1.5], np.float32))},
        {"scores": text_of_array(np.array([np.nan], np.float32))},
        {"class_ids": [2]},
        {"class_ids": [-1]},
        {"class_ids": [1, 1]},
        {"class_ids": "x"},
        {"class_ids": [1 << 70]},
    ],
)
def test_detections_that_cannot_be(change):
    post = PostProcess()
    image, found = prediction(GOOD, HEAD, post, (96, 72), "fake")
    assert image == "a" * 64
    assert found.scores.tolist() == [0.5]
    with pytest.raises(DeviceError, match="not one that an agent gives"):
        prediction({**GOOD, **change}, HEAD, post, (96, 72), "fake")


def test_more_detections_than_asked_for():
    with pytest.raises(DeviceError):
        prediction(GOOD, HEAD, PostProcess(max_detections=0), None, "fake")


def _bench(wall, cpu, *, elapsed_s=0.05, duration_s=0.05, pause_s=0.05):
    sample = {
        "at_s": 0.1, "others_cores": 0.0, "steal_cores": 0.0, "frequency_mhz": 1500.0, "temperature_c": 50.0,
        "zones_c": {"cpu": 50.0}, "rss_mb": 10.0, "pi_flags": 0, "power_w": {},
    }  # fmt: skip
    health = {
        "before": sample, "during": [], "after": sample, "governors": ["ondemand"],
        "max_frequency_mhz": 2400.0,
        "peak_rss_mb": 20.0, "throttling": ["the firmware reports: throttled"], "sensors": ["firmware flags"],
    }  # fmt: skip
    warm = {"discarded": 3, "steady": True, "last_medians_ms": [1.0]}
    return [
        {"kind": "part", "what": "measuring", "data": {}},
        pause_s,
        {"kind": "part", "what": "measured", "data": {"elapsed_s": elapsed_s}},
        {"kind": "part", "what": "series", "data": {"name": "wall a", "values": wall}},
        {"kind": "part", "what": "series", "data": {"name": "cpu a", "values": cpu}},
        {"kind": "part", "what": "health samples", "data": {"samples": [sample] * 2}},
        {"kind": "part", "what": "health", "data": health},
        {
            "kind": "result",
            "data": {
                "contestants": [{"name": "a", "warm_up": warm, "details": {}, "peak_memory_mb": None}],
                "stages": None, "rate": None, "duration_s": duration_s, "order": "random", "seed": 0,
                "remarks": [],
            },
        },
    ]  # fmt: skip


def bench(messages, *, emulated=False):
    answers = {
        "have": [{"kind": "result", "data": {"missing": []}}],
        "load": [{"kind": "result", "data": {"model": 1}}],
        "bench": messages,
    }
    order = BenchOrder((Entrant("a", DeviceModel("onnxruntime", "a.onnx", {}), None),), None, 0.05, 1, 1)
    with Worker(device(answers), pauses_s=()) as worker:
        return bench_on(worker, order, emulated=emulated)


def test_a_throttled_run_is_marked():
    done = bench(_bench([1_000_000] * 20, [900_000] * 20))
    assert done.health.throttled is True
    assert len(done.health.during) == 2
    assert done.report.contestant("a").quantile(50).value_ms == 1.0


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (_bench([1_000_000, -5], [1, 1]), "clock jumped"),
        (_bench([], []), "clock jumped"),
        (_bench([1_000_000] * 3, [1] * 2), "do not fit together"),
        (_bench([10**12] * 3, [1] * 3), "do not fit together"),
        (_bench([1_000_000] * 3, [1] * 3, elapsed_s=900.0), "its clock counted 900.0 s"),
        (_bench([1_000_000] * 3, [1] * 3)[:-2] + _bench([1], [1])[-1:], "lacks a part"),
        (_bench([1.5], [1]), "not one that an agent gives"),
    ],
)
def test_samples_that_cannot_be(messages, words):
    with pytest.raises(DeviceError, match=words) as failure:
        bench(messages)
    assert failure.value.exit_code == 4


def test_the_clock_of_an_emulated_board_may_run_as_it_likes():
    assert bench(_bench([10**6] * 3, [1] * 3, elapsed_s=900.0), emulated=True).clock_ratio > 100


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"machine": "armv7l"}, "wrong architecture"),
        ({"bits": 32}, "32-bit Python"),
        ({"system": "Darwin"}, "wrong architecture"),
        ({"libc": ["", ""]}, "C library"),
    ],
)
def test_devices_without_wheels(probe, words):
    from edgeq.device.answers import Probe

    with pytest.raises(DeviceError, match=words):
        platform_of(Probe.model_validate({**PROBE, **probe}, strict=False), "fake")
