"""The public API: sorted, complete, and light to name."""

from __future__ import annotations

import subprocess
import sys

from edgeq import api


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert api.__all__ == sorted(api.__all__)
    assert [name for name in api.__all__ if not hasattr(api, name)] == []


def test_importing_edgeq_imports_nothing_heavy() -> None:
    heavy = "('numpy', 'onnx', 'onnxruntime', 'cv2', 'pydantic')"
    code = f"import sys, edgeq; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
