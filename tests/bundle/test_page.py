from html.parser import HTMLParser

import pytest

from edgeq.bundle.manifest import FileRole, SourceModel
from edgeq.bundle.pack import BundleContents, ContentFile, write_bundle
from edgeq.bundle.page import bundle_page, render_page
from edgeq.bundle.read import add_page, add_report, open_bundle
from edgeq.gate import Budget, Measured, check
from edgeq.report.histogram import latency_histogram
from edgeq.types import HeadFamily, HeadSpec, InputSpec, PostProcess

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[31m"


class Page(HTMLParser):
    """Tags and texts; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def reports(latency):
    gate = check(Budget(max_map_drop=0.5, max_p99_ms=9), Measured(map_drop_points=0.1)).to_json()
    return {
        "accuracy": {"models": [{"name": EVIL, "map50_95": 0.34, "drop_points": 0.2}]},
        "latency": {**latency, "findings": [{"message": EVIL, "fix": "x"}]},
        "stages": {"stages": [{"name": EVIL, "p50_ms": 1}], "total": {"name": "total"}},
        "audit": {"layers": [{"name": EVIL, "op": "Conv", "precision": "float", "reason": EVIL}]},
        "gate": gate,
        "other-" + "x": {"k": EVIL, "map": {"a": 1}},
    }


def check_safe(text):
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "form", "a"}
    for _, attributes in page.tags:
        assert not {"src", "href", "onerror", "onload"} & set(attributes)
    assert "url(" not in text
    assert "@import" not in text
    assert "\x1b" not in text
    return page


def test_self_contained_and_escaped(reports):
    page = check_safe(render_page(EVIL, {"name": EVIL}, reports))
    text = "".join(page.texts)
    assert "0.3400" in text
    assert "2.00x" in text
    assert "not-measured" in text
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    policy = [attributes for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    assert policy[0]["content"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "broken",
    [
        {"latency": {"contestants": 5}},
        {"latency": {"contestants": [{"name": None, "p50_ms": "fast", "wall_ns": "x"}]}},
        {"latency": {"contestants": [{}], "speedups": [{"wall": 1}]}},
        {"accuracy": {"models": [1, None]}},
        {"accuracy": {"float": {"map50_95": None}}},
        {"gate": {"lines": "none"}},
        {"audit": {}},
    ],
)
def test_malformed_reports_show_less_and_do_not_fail(broken):
    check_safe(render_page("t", {}, broken))


def test_both_forms_of_the_accuracy_report():
    for data in ({"models": [{"name": "int8", "top1": 0.7}]}, {"int8": {"top1": 0.7}, "images": 5}):
        assert "0.7000" in render_page("t", {}, {"accuracy": data})


def test_histogram_counts_and_survives_equal_samples():
    svg = latency_histogram("a", [5_000_000] * 10)
    assert "10 runs, median 5.00 ms" in svg
    assert latency_histogram("a", [1]) == ""
    assert latency_histogram("a", "text") == ""
    outlier = [10_000_000 + i for i in range(999)] + [90_000_000]
    assert "5 beyond, greatest 90.00" in latency_histogram("a", outlier)


def test_page_of_a_bundle(tmp_path, latency):
    contents = BundleContents(
        name="yolo & <co>",
        target="x86-onnxruntime",
        runtime="onnxruntime",
        artifact="model.qdq.onnx",
        files=(ContentFile("model.qdq.onnx", FileRole.ARTIFACT, b"x" * 2_000_000),),
        recipe_toml="schema = 1\n",
        source=SourceModel(name="a.onnx", sha256="ab" * 32, size_bytes=1),
        calibration=None,
        input=InputSpec("images", 416, 640),
        head=HeadSpec(HeadFamily.YOLOV8, "out", ("a",)),
        postprocess=PostProcess(),
    )
    bundle = add_report(write_bundle(tmp_path / "b", contents), "latency", latency)
    page = check_safe(bundle_page(bundle))
    text = "".join(page.texts)
    assert "yolo & <co>" in text
    assert "2.00 MB" in text
    assert "640 x 416" in text
    add_page(bundle, bundle_page(bundle))
    assert open_bundle(tmp_path / "b").unexpected == ()


def test_reports_say_on_which_device_they_were_made(latency):
    device = {"name": EVIL, "model": "linux,dummy-virt", "emulated": "emulated: correctness only, not speed"}
    reports = {
        "latency-pi5": {**latency, "device": device},
        "accuracy": {"models": [], "device": device, "parity_summary": ["pixels equal on 16 of 16", EVIL]},
        "audit": {"layers": [], "device": {"name": "pi5", "model": None, "emulated": None}},
    }
    page = Page(render_page("x", {}, reports))
    said = " ".join(page.texts)
    assert said.count("on <script>") == 2
    assert page.texts.count("emulated: correctness only, not speed") == 2
    assert "pixels equal on 16 of 16" in page.texts
    assert "on pi5" in page.texts
    # A device's own report has the section of its kind.
    assert "p50, 95 % interval" in page.texts
    assert not any(tag == "script" for tag, _ in page.tags)
