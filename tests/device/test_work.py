"""Work on devices: predictions equal this machine's, cut connections go on, nothing is left running."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.benchmark.course import WholePath
from edgeq.data.images import read_image
from edgeq.data.preprocess import preprocess
from edgeq.device.agent.models import Models
from edgeq.device.agent.store import Store
from edgeq.device.client import AgentError, Device
from edgeq.device.errors import DeviceError, LinkLost
from edgeq.device.latency import BenchOrder, Entrant, bench_on
from edgeq.device.local import LocalLink
from edgeq.device.models import file_model
from edgeq.device.parity import parity
from edgeq.device.predictions import Predictor, image_files
from edgeq.device.worker import Worker
from edgeq.errors import InputError
from edgeq.model.decode import decode_detections
from edgeq.runtimes.base import SessionOptions
from edgeq.runtimes.onnxruntime.session import open_session
from edgeq.types import HeadFamily, HeadSpec, InputSpec, PostProcess

from .conftest import CLASSES, SIDE, CutLink

SPEC = InputSpec("images", SIDE, SIDE)
HEAD = HeadSpec(HeadFamily.YOLOV8, "output0", CLASSES)
POST = PostProcess(confidence=0.05)
QUICK = (0.01, 0.01, 0.01)


def here(model: Path, pictures):
    session = open_session(model, SessionOptions(threads=1))
    out = []
    for path in pictures:
        tensor, geometry = preprocess(read_image(path), SPEC)
        found = decode_detections(session.infer(tensor), head=HEAD, spec=SPEC, geometry=geometry, post=POST)
        out.append(found)
    return out


def predictor(worker: Worker, model: Path) -> Predictor:
    return Predictor(worker, file_model(model, "onnxruntime"), SPEC, HEAD, POST, threads=1)


def processes_of(folder: Path) -> list[int]:
    """Processes whose command names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in entry.read_bytes() and int(entry.parts[2]) != os.getpid():
                found.append(int(entry.parts[2]))
        except OSError:
            continue
    return found


def gone(folder: Path, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes_of(folder)


def test_predictions_equal_this_machines_to_the_bit(tmp_path, model_file, pictures):
    with Worker(LocalLink(tmp_path / "dev")) as worker:
        found = predictor(worker, model_file).predict(image_files(pictures))
    mine = here(model_file, pictures)
    assert sum(len(entry.scores) for entry in mine) > 0
    assert parity(mine, found).identical
    assert gone(tmp_path / "dev")


def test_images_and_models_are_sent_once(tmp_path, model_file, pictures):
    link = LocalLink(tmp_path / "dev")
    with Worker(link) as worker:
        predictor(worker, model_file).predict(image_files(pictures))
        first = worker.device.sent_bytes
    with Worker(link) as worker:
        predictor(worker, model_file).predict(image_files(pictures))
        assert worker.device.sent_bytes == 0
    assert first >= sum(path.stat().st_size for path in pictures)
    assert len(list((tmp_path / "dev" / "agent").glob("*.pyz"))) == 1


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("way", ["to", "from"])
def test_a_cut_at_any_stage_is_gone_on_with(tmp_path, model_file, pictures, way, share):
    images = image_files(pictures)
    whole = CutLink(tmp_path / "whole")
    with Worker(whole) as worker:
        wanted = predictor(worker, model_file).predict(images)
    length = whole.agents[0].written if way == "to" else whole.agents[0].read
    cut = (int(length * share), None) if way == "to" else (None, int(length * share))
    link = CutLink(tmp_path / "cut", [cut])
    notes: list[str] = []
    with Worker(link, pauses_s=QUICK, note=notes.append) as worker:
        started = predictor(worker, model_file)
        assert parity(wanted, started.predict(images)).identical
    assert len(link.agents) == 2
    assert len(notes) == 1
    assert gone(tmp_path / "cut")


def test_answered_images_are_not_run_again(tmp_path, model_file, pictures):
    images = image_files(pictures)
    whole = CutLink(tmp_path / "whole")
    with Worker(whole) as worker:
        predictor(worker, model_file).predict(images)
    link = CutLink(tmp_path / "cut", [(None, int(whole.agents[0].read * 0.7))])
    seen: list[str] = []
    with Worker(link, pauses_s=QUICK) as worker:
        started = predictor(worker, model_file)
        original = worker.device.request

        def spy(operation, data, **options):
            if operation == "infer":
                seen.append(len(data["images"]))
            return original(operation, data, **options)

        worker.device.request = spy
        started.predict(images)
    assert seen[0] == len(images)
    assert 0 < seen[1] < len(images)


def test_a_cut_transfer_resumes_in_the_middle_of_a_file(tmp_path, model_file):
    big = tmp_path / "big.bin"
    big.write_bytes(np.random.default_rng(0).bytes(4 << 20))
    upload = file_model(big, "onnxruntime").files["big.bin"]
    link = CutLink(tmp_path / "dev", [(3 << 20, None)])
    with Device(link) as device:
        with pytest.raises(LinkLost):
            device.upload([upload])
        first = device.sent_bytes
        device.open()
        device.upload([upload])
        again = device.sent_bytes - first
    assert 0 < again <= (2 << 20)
    stored = tmp_path / "dev" / "store" / "blobs" / upload.sha256
    assert stored.read_bytes() == big.read_bytes()


def test_tries_are_bounded(tmp_path, model_file, pictures):
    link = CutLink(tmp_path / "dev", [(None, 40)] * 10 + [(0, None)] * 10)
    with pytest.raises(LinkLost), Worker(link, pauses_s=QUICK) as worker:
        predictor(worker, model_file).predict(image_files(pictures))
    link = CutLink(tmp_path / "dev", [(None, 400)] * 20)
    with pytest.raises(LinkLost) as failure, Worker(link, pauses_s=QUICK) as worker:
        predictor(worker, model_file).predict(image_files(pictures))
    assert failure.value.exit_code == 4
    assert len(link.agents) == 1 + len(QUICK)


def test_a_killed_agent_is_named_and_the_work_goes_on(tmp_path, model_file, pictures):
    notes: list[str] = []
    with Worker(LocalLink(tmp_path / "dev"), pauses_s=QUICK, note=notes.append) as worker:
        started = predictor(worker, model_file)
        started.predict(image_files(pictures[:4]))
        os.kill(worker.device.hello.pid, 9)
        found = started.predict(image_files(pictures))
    assert "was killed" in notes[0]
    assert parity(here(model_file, pictures), found).identical


def test_a_damaged_blob_on_the_device_is_sent_again(tmp_path, model_file, pictures):
    images = image_files(pictures)
    with Worker(LocalLink(tmp_path / "dev"), pauses_s=QUICK) as worker:
        predictor(worker, model_file).predict(images)
    for sha256 in (images[3].upload.sha256, file_model(model_file, "onnxruntime").files["tiny.onnx"].sha256):
        blob = tmp_path / "dev" / "store" / "blobs" / sha256
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)
    with Worker(LocalLink(tmp_path / "dev"), pauses_s=QUICK) as worker:
        found = predictor(worker, model_file).predict(images)
    assert parity(here(model_file, pictures), found).identical


def test_a_corrupted_artifact_is_refused_by_the_device(tmp_path, model_file, pictures):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model_file.read_bytes()[:200])
    with (
        pytest.raises(AgentError, match="cannot load") as failure,
        Worker(LocalLink(tmp_path / "dev")) as worker,
    ):
        predictor(worker, broken).predict(image_files(pictures[:1]))
    assert failure.value.exit_code == 4


def test_a_file_that_is_not_the_manifests_is_refused(tmp_path, model_file):
    from edgeq.device.client import Upload
    from edgeq.device.models import DeviceModel
    from edgeq.files import sha256_of

    manifest = tmp_path / "manifest.json"
    manifest.write_text(
        '{"format": "edgeq-bundle", "schema": 1, "files": {"tiny.onnx": {"sha256": "%s", "size_bytes": 1}}}'
        % ("0" * 64)
    )
    files = {path.name: Upload(path, sha256_of(path), path.stat().st_size) for path in (model_file, manifest)}
    model = DeviceModel("onnxruntime", "tiny.onnx", files)
    with (
        pytest.raises(AgentError, match="manifest") as failure,
        Worker(LocalLink(tmp_path / "dev")) as worker,
    ):
        model.bring(worker.device)
    assert failure.value.code == "bundle"


def test_a_runtime_that_is_not_there_says_how_to_get_it(tmp_path, model_file):
    model = replace(file_model(model_file, "onnxruntime"), runtime="nonesuch")
    with (
        pytest.raises(AgentError, match="nonesuch") as failure,
        Worker(LocalLink(tmp_path / "dev")) as worker,
    ):
        model.bring(worker.device)
    assert "edgeq device setup" in failure.value.fix


def test_the_agent_ends_with_its_host_even_while_it_measures(tmp_path, model_file):
    import threading

    device = Device(LocalLink(tmp_path / "dev"))
    device.open()
    number = file_model(model_file, "onnxruntime").bring(device)
    request = {
        "contestants": [{"name": "a", "model": number, "input": None}], "baseline": None, "duration_s": 60,
        "min_runs": 1, "threads": 1, "affinity": [], "warm_up_s": 1.0, "memory": False, "rate_hz": None,
        "path": None,
        "images": [],
    }  # fmt: skip
    started = threading.Event()
    failures = []

    def ask():
        try:
            device.request("bench", request, on_progress=lambda *_: started.set())
        except DeviceError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert started.wait(20)
    assert processes_of(tmp_path / "dev")
    device.close()
    thread.join(10)
    assert failures
    assert gone(tmp_path / "dev")


def test_latency_on_the_device_has_all_its_samples(tmp_path, model_file, pictures):
    entrants = tuple(Entrant(name, file_model(model_file, "onnxruntime"), SPEC) for name in ("float", "int8"))
    order = BenchOrder(
        entrants, "float", duration_s=0.5, min_runs=64, threads=1, rate_hz=50.0, memory=True, warm_up_s=0.3,
        path=WholePath("int8", SPEC, HEAD), images=tuple(image.upload for image in image_files(pictures[:3])),
    )  # fmt: skip
    with Worker(LocalLink(tmp_path / "dev")) as worker:
        done = bench_on(worker, order, emulated=False)
    first, second = done.report.contestants
    assert len(first.wall_ns) == len(second.wall_ns) >= 64
    assert first.quantile(50).value_ms > 0
    assert [entry.name for entry in done.report.speedups] == ["int8"]
    assert [stage.name for stage in done.stages.stages] == [
        "decode",
        "pre-process",
        "inference",
        "post-process",
    ]
    assert len(done.rate.response_ns) == 25
    assert first.peak_memory_mb > 10
    assert abs(done.clock_ratio - 1) < 0.2
    assert first.details["runtime"] == "onnxruntime"


def test_options_of_the_runtime_reach_the_session(tmp_path, model_file):
    store = Store(tmp_path)
    models = Models(store)
    request = {"runtime": "onnxruntime", "artifact": "m.onnx", "files": {}, "options": {"dla_core": 1}}
    model = models.get(models.load(request))
    assert model.options(3) == SessionOptions(threads=3, dla_core=1)
    with pytest.raises(InputError, match="session options"):
        models.load({**request, "options": {"dla_core": "1"}})
    models.close()
