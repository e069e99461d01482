"""The commands with ``--on``: the same reports, made on a device."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeq.bundle.read import open_bundle
from edgeq.cli import remote
from edgeq.device.errors import DeviceError

from .conftest import run_edgeq


@pytest.fixture(autouse=True)
def own_device_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEQ_DEVICE_FOLDER", str(tmp_path / "device"))


def test_evaluate_on_a_device(edgeq, bundle, made_bundle):
    _, data, _ = made_bundle
    here = edgeq("evaluate", bundle, "--data", data, "--no-save", "--json")
    there = edgeq("evaluate", bundle, "--data", data, "--on", "local", "--json")
    assert there.code == 0, there.err
    report = there.json
    assert report["parity"]["identical"] is True
    assert report["parity"]["image_count"] == 8
    assert report["parity"]["tensors"]["equal_pixels_count"] == 8
    assert report["parity"]["tensors"]["equal_outputs_count"] == 8
    assert report["native_resize_parity"]["image_count"] == 8
    assert report["models"] == here.json["models"]
    assert report["drop"] == here.json["drop"]
    assert report["device"]["name"] == "local"
    assert open_bundle(bundle).report("accuracy")["device"]["name"] == "local"


def test_bench_on_a_device(edgeq, bundle):
    result = edgeq(
        "bench", bundle, "--on", "local", "--duration", "300ms", "--min-runs", "11", "--rate", "50",
        "--no-memory", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    report = result.json
    assert report["judged"] == "int8"
    assert {entry["name"] for entry in report["contestants"]} == {"float", "int8"}
    assert all(len(entry["wall_ns"]) >= 11 for entry in report["contestants"])
    assert report["rate"]["frame_count"] == 15
    assert report["health"]["before"]["at_s"] >= 0
    assert report["stages"]["total"]["wall_ns"]
    assert report["device"]["emulated"] is None
    stored = open_bundle(bundle).report("latency")
    assert stored["device"] == report["device"]


def test_times_of_layers_on_a_device(edgeq, bundle):
    result = edgeq(
        "bench", bundle, "--on", "local", "--per-layer", "--duration", "100ms", "--min-runs", "3",
        "--no-memory", "--no-save", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    layers = result.json["layers"]
    assert sum(layer["kernel"] == "QLinearConv" for layer in layers) >= 1
    assert all(layer["time_ms"] >= 0 for layer in layers)


def test_another_bundle_is_the_rival_on_a_device(edgeq, bundle, tmp_path):
    other = shutil.copytree(bundle, tmp_path / "other")
    result = edgeq(
        "bench", bundle, "--on", "local", "--against", other, "--duration", "100ms", "--min-runs", "3",
        "--no-memory", "--no-save", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    names = [entry["name"] for entry in result.json["contestants"]]
    assert len(names) == 2
    assert names[0].endswith("(other)")
    assert result.json["speedups"][0]["baseline"] == names[0]


def test_rate_soak_and_affinity_run_through_the_agent_here(edgeq, bundle):
    result = edgeq(
        "bench",
        bundle,
        "--soak",
        "300ms",
        "--min-runs",
        "3",
        "--affinity",
        "0",
        "--no-memory",
        "--no-save",
        "--json",
    )
    assert result.code == 0, result.err
    assert {entry["name"] for entry in result.json["drift"]} == {"float", "int8"}
    assert edgeq("bench", bundle, "--affinity", "first").code == 2
    missing = edgeq("bench", bundle, "--affinity", "4000", "--json")
    assert missing.code == 4
    assert "4000" in missing.json["error"]


def test_audit_predict_and_doctor_on_a_device(edgeq, bundle, made_bundle):
    _, data, _ = made_bundle
    here, there = (
        edgeq("audit", bundle, "--no-save", "--json", *more).json for more in ((), ("--on", "local"))
    )
    assert there["layers"] == here["layers"]
    assert there["device"]["name"] == "local"
    image = next((data.parent / "images" / "val").glob("*.png"))
    here, there = (
        edgeq("predict", bundle, image, "--confidence", "0.01", "--json", *more).json
        for more in ((), ("--on", "local"))
    )
    assert there == here
    found = edgeq("doctor", "--on", "local", "--json")
    assert found.code == 0
    assert found.json["machine"]["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert edgeq("device", "check", "local").code == 0


def test_gate_on_a_device(edgeq, bundle, made_bundle):
    _, data, _ = made_bundle
    flags = (
        "--on",
        "local",
        "--data",
        data,
        "--duration",
        "200ms",
        "--max-map-drop",
        "100",
        "--max-p50-ms",
        "5000",
    )
    passed = edgeq("gate", bundle, *flags, "--json")
    assert passed.code == 0, passed.err
    assert passed.json["passed"] is True
    assert passed.json["device"]["name"] == "local"
    assert open_bundle(bundle).report("gate")["device"]["name"] == "local"
    assert edgeq("gate", bundle, "--on", "local", "--max-size-mb", "0.000001").code == 3


def test_speed_of_an_emulated_board_passes_no_limit(edgeq, bundle, monkeypatch):
    import edgeq.cli.remote as remote

    monkeypatch.setattr(remote, "emulated_label", lambda text: "emulated: correctness only, not speed (test)")
    result = edgeq(
        "gate",
        bundle,
        "--on",
        "local",
        "--duration",
        "200ms",
        "--max-p50-ms",
        "5000",
        "--max-size-mb",
        "9",
        "--json",
    )
    assert result.code == 3
    lines = {line["limit"]: line["verdict"] for line in result.json["lines"]}
    assert lines["max_p50_ms"] == "not-measured"
    assert lines["max_size_mb"] == "pass"
    assert any("emulated" in text for text in result.json["warnings"])
    report = open_bundle(bundle).report("latency")
    assert report["device"]["emulated"].startswith("emulated: correctness only")
    assert any(finding["kind"] == "emulated" for finding in report["findings"])
    assert "emulated: correctness only" in (bundle / "report.html").read_text()


def test_many_devices_and_one_that_fails(edgeq, bundle, tmp_path):
    lab = tmp_path / "lab.toml"
    lab.write_text(
        'schema = 1\n[[devices]]\nname = "one"\non = "local"\n[[devices]]\nname = "two"\non = "local"\n'
        '[[devices]]\nname = "off"\non = "ssh://127.0.0.1:1"\n'
    )
    result = edgeq(
        "bench", bundle, "--on", lab, "--duration", "200ms", "--min-runs", "3", "--no-memory", "--json"
    )
    assert result.code == 4
    first, second, off = result.json["devices"]
    assert first["report"]["judged"] == second["report"]["judged"] == "int8"
    assert off["exit_code"] == 4
    assert off["error"]
    assert "off failed" in result.err
    assert {"latency-one", "latency-two"} <= set(open_bundle(bundle).report_names)


def test_a_list_of_devices_leaves_a_report_of_each(edgeq, bundle, made_bundle, tmp_path):
    _, data, _ = made_bundle
    lab = tmp_path / "lab.toml"
    lab.write_text("schema = 1\n" + "".join(f'[[devices]]\nname = "{n}"\non = "local"\n' for n in "ab"))
    result = edgeq("evaluate", bundle, "--data", data, "--images", "2", "--on", lab, "--json")
    assert result.code == 0, result.err
    for name in "ab":
        assert open_bundle(bundle).report(f"accuracy-{name}")["device"]["name"] == name


def test_errors_of_the_only_device_are_the_commands(edgeq, bundle):
    assert edgeq("bench", bundle, "--on", "-oProxyCommand=x").code == 2
    if shutil.which("ssh") is None:
        pytest.skip("no ssh client here")
    failed = edgeq("audit", bundle, "--on", "ssh://127.0.0.1:1", "--json")
    assert failed.code == 4
    assert "ssh port" in failed.json["error"]


def test_device_commands_refuse_what_they_cannot(edgeq):
    assert edgeq("device", "setup", "local", "--runtime", "coreml").code == 2
    assert (
        edgeq("device", "setup", "local", "--runtime", "onnxruntime", "--target", "x86-onnxruntime").code == 2
    )
    cleaned = edgeq("device", "clean", "local", "--json")
    assert cleaned.code == 0
    assert cleaned.json["device"] == "local"


def test_interrupted_work_leaves_no_agent(bundle, tmp_path):
    import signal
    import time

    from .conftest import start_edgeq

    process = start_edgeq("bench", bundle, "--on", "local", "--duration", "60s", "--no-save")
    folder = str(tmp_path / "device")

    def agents():
        return [entry for entry in Path("/proc").glob("[0-9]*") if folder in _command(entry)]

    deadline = time.monotonic() + 30
    while not agents() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert agents()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    deadline = time.monotonic() + 10
    while agents() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not agents()


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_the_command_itself(bundle):
    result = run_edgeq("doctor", "--on", "local", "--json")
    assert result.code == 0
    assert json.loads(result.out)["device"]["name"] == "local"


@pytest.mark.parametrize(
    ("need", "version", "decoder", "words", "never"),
    [
        ("onnxruntime", None, "OpenCV", "device setup ssh://board --runtime onnxruntime", "cannot"),
        # What edgeq cannot install must not be advised: the command would refuse.
        ("tensorrt", None, "OpenCV", "python3-libnvinfer", "device setup"),
        ("coreml", None, "OpenCV", "edgeq[coreml]", "device setup"),
        ("tensorrt", "10.3.0", None, "device setup ssh://board --runtime tensorrt", "cannot"),
    ],
)
def test_a_device_that_lacks_something_is_told_what_helps(need, version, decoder, words, never):
    found = SimpleNamespace(runtime=need, version=version, problems=["said by the probe"])
    side = SimpleNamespace(
        entry=SimpleNamespace(name="board", on="ssh://board"),
        facts=SimpleNamespace(runtimes=[found], decoder=decoder),
    )
    with pytest.raises(DeviceError) as failure:
        remote._check_runtime(side, need)
    assert words in failure.value.fix
    assert never not in failure.value.fix
    assert ("said by the probe" in failure.value.message) == (version is None)
