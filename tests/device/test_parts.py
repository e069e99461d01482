"""Parts of the device side: addresses, ssh's words, the agent's package and store, parity, device lists."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from edgeq.device.address import parse_address
from edgeq.device.agent.specs import head_spec, input_spec, post_process
from edgeq.device.agent.store import BlobLost, DiskFull, Store
from edgeq.device.agent.streams import Source
from edgeq.device.agent.wire import array_from_text, text_of_array
from edgeq.device.errors import DeviceError, LinkLost
from edgeq.device.fleet import devices_named, link_to, on_all
from edgeq.device.package import agent_modules, build_agent
from edgeq.device.parity import parity
from edgeq.device.ssh import explain_ssh
from edgeq.errors import BundleError, InputError, SpecError
from edgeq.report.jsonio import to_jsonable
from edgeq.types import Detections, HeadFamily, HeadSpec, InputSpec, PostProcess, ResizeRule


@pytest.mark.parametrize(
    ("text", "destination", "port"),
    [
        ("local", None, None),
        ("pi5", "pi5", None),
        ("pi@10.0.0.7", "pi@10.0.0.7", None),
        ("pi@board.lan:2222", "pi@board.lan", 2222),
        ("ssh://pi@board.lan:2222", "pi@board.lan", 2222),
        ("ssh://pi5/", "pi5", None),
        ("ssh://pi@[fe80::1]:22", "pi@fe80::1", 22),
    ],
)
def test_addresses(text, destination, port):
    address = parse_address(text)
    assert (address.destination, address.port, address.local) == (destination, port, text == "local")


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=evil", "a b", "pi@-x", "a;b", "$(x)", "host:99999", "ssh://", "a\nb", "-v"]
)
def test_what_is_no_address(text):
    with pytest.raises(InputError):
        parse_address(text)


_FAILED = "Host key verification failed."


@pytest.mark.parametrize(
    ("said", "words", "again"),
    [
        (f"@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n{_FAILED}", "another one", False),
        (f"No ED25519 host key is known for x.\n{_FAILED}", "not in your known_hosts", False),
        ("pi@x: Permission denied (publickey).", "refused", False),
        ("ssh: Could not resolve hostname x: Name or service not known", "no host of that name", False),
        ("ssh: connect to host x port 22: Connection refused", "nothing answers", True),
        ("ssh: connect to host x port 22: No route to host", "does not answer", True),
        ("ssh: connect to host x port 22: Connection timed out", "does not answer", True),
        ("kex_exchange_identification: Connection closed by remote host", "gave up", True),
    ],
)  # fmt: skip
def test_ssh_words(said, words, again):
    error = explain_ssh(said, "ssh -p 22 pi@x", "board")
    assert words in error.message
    assert isinstance(error, LinkLost) is again
    assert error.fix


def test_the_package_is_the_same_each_time_and_holds_only_what_is_needed():
    build_agent.cache_clear()
    first = build_agent()
    build_agent.cache_clear()
    assert build_agent() == first
    names = zipfile.ZipFile(BytesIO(first.content)).namelist()
    assert "__main__.py" in names
    assert "edgeq/runtimes/onnxruntime/session.py" in names
    assert "edgeq/model/decode.py" in names
    assert not [
        name for name in names if name.startswith(("edgeq/quantize", "edgeq/report", "edgeq/evaluate"))
    ]
    assert not [name for name in names if name.endswith(("lower.py", "scheme.py", "manifest.py", "read.py"))]


def test_what_travels_is_python_3_9():
    """Syntax, and the calls that 3.10 added; a 3.9 is rarely at hand."""
    import edgeq

    root = Path(edgeq.__file__).parents[1]
    later = {"bit_count", "pairwise", "aiter", "anext", "slots", "kw_only"}
    for name in agent_modules():
        path = root.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(file.read_text(), feature_version=(3, 9))
        futures = [
            node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        ]
        plain = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AnnAssign))]
        assert futures or not plain, f"{name}: annotations would be evaluated"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
                assert not [entry for entry in node.keywords if entry.arg == "strict"], (
                    f"{name}: zip(strict=)"
                )
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "isinstance"
            ):
                assert not isinstance(node.args[1], ast.BinOp), f"{name}: isinstance with |"
            if isinstance(node, ast.Attribute):
                assert node.attr not in later, f"{name}: {node.attr}"
            if isinstance(node, ast.keyword):
                assert node.arg not in later, f"{name}: {node.arg}="
            if isinstance(node, ast.Match if hasattr(ast, "Match") else ()):
                raise AssertionError(f"{name}: match")


_CODE = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is not on the device")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, ZIP)
import edgeq
assert ZIP in edgeq.__file__, edgeq.__file__
for name in MODULES:
    importlib.import_module(name)
"""
HOST_ONLY = (
    "onnx",
    "onnx_ir",
    "pydantic",
    "rich",
    "typer",
    "psutil",
    "yaml",
    "faster_coco_eval",
    "ultralytics",
)


@pytest.mark.parametrize("bare", [False, True])
def test_what_travels_imports_little(tmp_path, bare):
    """All of it without the host's packages; what takes in files and sets a board up without numpy too."""
    agent = build_agent()
    path = tmp_path / agent.file_name
    path.write_bytes(agent.content)
    modules = agent_modules()
    forbidden = HOST_ONLY
    if bare:
        forbidden = (*HOST_ONLY, "numpy", "cv2", "onnxruntime", "PIL")
        modules = ("edgeq.device.agent.serve", "edgeq.device.agent.install", "edgeq.device.agent.store")
    code = _CODE.replace("FORBIDDEN", repr(forbidden)).replace("ZIP", repr(str(path)))
    done = subprocess.run(
        [sys.executable, "-c", code.replace("MODULES", repr(tuple(modules)))],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _older_pythons() -> list[str]:
    import shutil

    found = [shutil.which(f"python3.{minor}") for minor in (9, 10)]
    places = [*Path.home().glob(".pyenv/versions/3.9*/bin/python"), *filter(None, found)]
    return [str(path) for path in places if _runs(str(path))]


def _runs(python: str) -> bool:
    done = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info[:2] == (3, 9))"], capture_output=True, check=False
    )
    return done.stdout.strip() == b"True"


def test_the_agent_takes_files_on_python_3_9(tmp_path):
    pythons = _older_pythons()
    if not pythons:
        pytest.skip("no Python 3.9 here")
    from edgeq.device.client import Device, Upload
    from edgeq.device.local import LocalLink

    file = tmp_path / "file"
    file.write_bytes(b"content" * 1000)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    with Device(LocalLink(tmp_path / "dev", python=pythons[0])) as device:
        assert device.hello.python.startswith("3.9.")
        device.upload([Upload(file, sha256, 7000)])
    assert (tmp_path / "dev" / "store" / "blobs" / sha256).read_bytes() == file.read_bytes()


def put(store: Store, content: bytes, *, upto: int | None = None, offset: int = 0) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    store.missing([(sha256, len(content))])
    store.receive(sha256, len(content), offset, iter([content[offset:upto]]))
    return sha256


def test_the_store_keeps_what_arrived_whole(tmp_path):
    store = Store(tmp_path)
    sha256 = put(store, b"abc")
    assert store.read(sha256) == b"abc"
    assert store.missing([(sha256, 3)]) == []
    with pytest.raises(BlobLost):
        put(store, b"defg", upto=2)
    assert store.missing([(hashlib.sha256(b"defg").hexdigest(), 4)]) == [(0, 0)]
    with pytest.raises(BundleError):
        store.path("../../etc/passwd")


def test_the_store_goes_on_where_a_transfer_was_cut(tmp_path):
    store = Store(tmp_path)
    content = bytes(range(256)) * 100
    sha256 = hashlib.sha256(content).hexdigest()

    def cut():
        yield content[:10_000]
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        store.receive(sha256, len(content), 0, cut())
    assert store.missing([(sha256, len(content))]) == [(0, 10_000)]
    store.receive(sha256, len(content), 10_000, iter([content[10_000:]]))
    assert store.read(sha256) == content


def test_one_file_has_one_writer(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    sha256 = hashlib.sha256(b"abcd").hexdigest()

    def meanwhile():
        yield b"ab"
        with pytest.raises(BlobLost, match="another agent"):
            second.receive(sha256, 4, 0, iter([b"abcd"]))
        yield b"cd"

    first.receive(sha256, 4, 0, meanwhile())
    assert second.read(sha256) == b"abcd"


def test_the_store_evicts_the_least_recently_used_but_nothing_in_use(tmp_path):
    import os

    old = Store(tmp_path, limit_bytes=1000)
    names = [put(old, bytes([number]) * 400) for number in range(2)]
    os.utime(tmp_path / "store" / "blobs" / names[0], (2e9, 2e9))
    store = Store(tmp_path, limit_bytes=1000)
    third = put(store, b"x" * 400)
    assert store.read(third)
    assert store.read(names[0])
    with pytest.raises(BlobLost):
        store.read(names[1])
    assert store.size_bytes == 800


def test_a_damaged_blob_is_found_and_removed(tmp_path):
    store = Store(tmp_path)
    sha256 = put(store, b"abc")
    store.path(sha256).write_bytes(b"abd")
    with pytest.raises(BlobLost, match="damaged"):
        store.read(sha256)
    with pytest.raises(BlobLost, match="not on the device"):
        store.read(sha256)


def test_a_full_disk_is_said_before_and_while_writing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    with pytest.raises(DiskFull, match="no room"):
        store.receive("0" * 64, 1 << 60, 0, iter([]))

    def full():
        yield b"a"
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFull, match="no room"):
        store.receive("1" * 64, 2, 0, full())


def test_the_source_tells_lines_from_raw_bytes():
    import os

    read, write = os.pipe()
    os.write(write, b'{"op":"put"}\n' + b"\n\x00raw\n" + b'{"op":"next"}\n')
    os.close(write)
    source = Source(read)
    assert source.line() == b'{"op":"put"}'
    assert b"".join(source.raw(6)) == b"\n\x00raw\n"
    assert source.line() == b'{"op":"next"}'
    assert source.line() == b""


def test_floats_travel_exactly():
    values = np.array([0.1, 1e-38, 3.4e38, -0.0, np.pi], np.float32)
    assert array_from_text(text_of_array(values)).tobytes() == values.tobytes()
    with pytest.raises(ValueError):
        array_from_text("AAA=")


def test_specs_travel():
    spec = InputSpec("x", 416, 320, mean=(1.0, 2.0, 3.0), resize=ResizeRule.CENTER_CROP, short_side_px=500)
    head = HeadSpec(HeadFamily.YOLOX, "y", ("a", "b"), strides=(8, 16))
    post = PostProcess(confidence=0.2)
    for value, read in ((spec, input_spec), (head, head_spec), (post, post_process)):
        data = json.loads(json.dumps(to_jsonable(value)))
        assert read(data) == value
        for broken in (None, {}, {**data, "more": 1}, dict.fromkeys(data)):
            with pytest.raises(SpecError):
                read(broken)


def detections(boxes, scores, classes) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(classes, np.int64)
    )


def test_parity_tells_identical_near_and_other():
    mine = detections([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.5], [0, 1])
    same = parity([mine], [mine])
    assert same.identical
    assert same.good
    assert "to the bit" in same.sentence()
    near = parity([mine], [detections([[0, 0, 10.5, 10], [50, 50, 60, 60]], [0.9, 0.49], [0, 1])])
    assert not near.identical
    assert near.good
    assert near.max_box_error_px == pytest.approx(0.5)
    assert near.max_score_error == pytest.approx(0.01, abs=1e-6)
    lost = parity([mine], [detections([[0, 0, 10, 10]], [0.9], [0])])
    assert lost.unpaired_count == 1
    assert not lost.good
    other_class = parity([mine], [detections([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.5], [0, 0])])
    assert other_class.unpaired_count == 2
    nothing = detections([], [], [])
    assert parity([nothing], [nothing]).identical
    assert parity([mine], [nothing]).unpaired_count == 2


def test_device_lists(tmp_path):
    path = tmp_path / "lab.toml"
    path.write_text(
        'schema = 1\n[[devices]]\nname = "pi5"\non = "pi@10.0.0.5"\n'
        'folder = "~/edgeq-ci"\nssh = "ssh -F lab.conf"\n'
        '[[devices]]\nname = "here"\non = "local"\n'
    )
    first, second = devices_named([str(path)])
    assert (first.name, first.folder, first.ssh) == ("pi5", "~/edgeq-ci", ("ssh", "-F", "lab.conf"))
    assert link_to(first).name == "pi5"
    assert link_to(second).python == sys.executable
    with pytest.raises(InputError, match="named twice"):
        devices_named([str(path), "pi5"])
    for text in (
        "schema = 2",
        "nonsense",
        'schema = 1\n[[devices]]\nname = "a"\non = "-x"\n',
        "schema = 1\ndevices = []",
    ):
        path.write_text(text)
        with pytest.raises(InputError):
            devices_named([str(path)])


def test_one_device_that_fails_does_not_stop_the_others():
    def job(entry):
        if entry.name == "b":
            raise DeviceError("no")
        return entry.name

    outcomes = on_all(devices_named(["a", "b", "c"]), job)
    assert [outcome.result for outcome in outcomes] == ["a", None, "c"]
    assert outcomes[1].error.message == "no"
