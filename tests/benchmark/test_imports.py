import subprocess
import sys

FORBIDDEN = ("onnx", "pydantic", "rich", "typer", "psutil", "onnxruntime", "cv2", "yaml")

CODE = """
import importlib, pkgutil, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is not on the device")
sys.meta_path.insert(0, Refuse())
import edgeq.benchmark
for entry in pkgutil.iter_modules(edgeq.benchmark.__path__):
    importlib.import_module("edgeq.benchmark." + entry.name)
for name in ("edgeq.types", "edgeq.errors", "edgeq.runtimes.base", "edgeq.bundle.check", "edgeq.files",
             "edgeq.gate", "edgeq.report.jsonio"):
    importlib.import_module(name)
from edgeq.benchmark.telemetry import Telemetry
from edgeq.benchmark.loop import Contestant, measure
with Telemetry() as telemetry:
    report = measure([Contestant("a", lambda _: sum(range(1000)), [0])], duration_s=0.1)
assert report.contestant("a").wall_ns
assert telemetry.record.peak_rss_mb > 5
"""


def test_device_side_needs_numpy_only():
    code = CODE.replace("FORBIDDEN", repr(FORBIDDEN))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
