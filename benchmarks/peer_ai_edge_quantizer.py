"""ai-edge-quantizer as one process of a benchmark: a float .tflite and calibration images to static INT8.

Runs in the quantiser's own environment, without edgeq. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import qtyping, quantizer, recipe

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="float .tflite")
    parser.add_argument("target", type=Path, help="INT8 .tflite to write")
    parser.add_argument("--images", type=Path, required=True, help=".npy, float32 (n, h, w, 3)")
    parser.add_argument("--float-stem", type=int, default=0, metavar="N", help="first N convolutions: float")
    parser.add_argument("--float-tail", action="store_true", help="after the last convolutions: float")
    given = parser.parse_args()
    made = quantizer.Quantizer(str(given.source))
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    # Float at the outside, as edgeq and Ultralytics have it.
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        _leave_float(made, ".*", end)
    names = _left_in_float(given.source, stem=given.float_stem, tail=given.float_tail)
    if names:
        _leave_float(made, _pattern(names), qtyping.TFLOperationName.ALL_SUPPORTED)
    signature, name = _signature(given.source)
    # Whatever iterable it is given, the quantiser makes a list of it first.
    tensors = [{name: image[None]} for image in np.load(given.images)]
    started_ns = time.perf_counter_ns()
    ranges = made.calibrate({signature: tensors})
    calibrated_ns = time.perf_counter_ns()
    made.quantize(calibration_result=ranges).export_model(str(given.target), overwrite=True)
    done_ns = time.perf_counter_ns()
    print(
        json.dumps(
            {
                "image_count": len(tensors),
                "float_op_count": len(names),
                "calibrate_s": round((calibrated_ns - started_ns) / 1e9, 2),
                "quantize_s": round((done_ns - calibrated_ns) / 1e9, 2),
            }
        )
    )
    return 0


def _leave_float(made: Any, pattern: str, operation: Any) -> None:
    made.update_quantization_recipe(
        regex=pattern, operation_name=operation, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE
    )


def _signature(source: Path) -> tuple[str, str]:
    """Names of the signature and of its input."""
    (found,) = Interpreter(str(source)).get_signature_list().items()
    return found[0], found[1]["inputs"][0]


def _pattern(names: Iterable[str]) -> str:
    """Matches the scopes of these operators; a scope is its outputs' names, a semicolon after each."""
    return f"(?:^|;)(?:{'|'.join(map(re.escape, names))})(?:;|$)"


def _left_in_float(source: Path, *, stem: int, tail: bool) -> list[str]:
    """First output of each operator up to the depth ``stem``, or from which no convolution is reached.

    An operator's depth is the most convolutions on a way from the input through it.
    """
    model = flatbuffer_utils.read_model(str(source))
    graph = model.subgraphs[0]
    kinds = [flatbuffer_utils.opcode_to_name(model, index) for index in range(len(model.operatorCodes))]
    convolves = [kinds[op.opcodeIndex] in _CONVOLUTIONS for op in graph.operators]
    depth: dict[int, int] = {}
    depths = []
    for op, own in zip(graph.operators, convolves, strict=True):
        depths.append(max((depth.get(int(i), 0) for i in op.inputs), default=0) + own)
        depth.update({int(i): depths[-1] for i in op.outputs})
    feeds: set[int] = set()
    follows = []
    for op, own in zip(reversed(graph.operators), reversed(convolves), strict=True):
        leads_on = any(int(i) in feeds for i in op.outputs)
        follows.append(not leads_on and not own)
        if leads_on or own:
            feeds.update(int(i) for i in op.inputs)
    return [
        graph.tensors[op.outputs[0]].name.decode()
        for op, at, last in zip(graph.operators, depths, reversed(follows), strict=True)
        if (stem and at <= stem) or (tail and last)
    ]


if __name__ == "__main__":
    sys.exit(main())
