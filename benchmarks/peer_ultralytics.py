"""Ultralytics' LiteRT export as one process of a benchmark: a checkpoint to static INT8.

Runs in the exporter's own environment, without edgeq. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ultralytics import YOLO


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help=".pt; the result lies beside it")
    parser.add_argument("--data", type=Path, required=True, help="data.yaml of the calibration images")
    parser.add_argument("--imgsz", type=int, required=True)
    given = parser.parse_args()
    # The split is named: its default is the images that the accuracy is measured on.
    made = YOLO(str(given.source)).export(
        format="litert", quantize=8, data=str(given.data), split="train", imgsz=given.imgsz, device="cpu"
    )
    print(json.dumps({"path": str(Path(made).resolve())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
