"""An Ultralytics checkpoint as ONNX, before the clock of a benchmark starts: both sides get the same file.

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgeq.model.ultralytics import export_onnx


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    print(json.dumps({"onnx": str(export_onnx(given.checkpoint, given.folder, size=None))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
