"""``trtexec`` played by a program: arguments VERSION LOG, then those of the real one.

Options, log lines, files and failures as in its source (samples/trtexec and samples/common of
github.com/NVIDIA/TensorRT at v10.3.0 and v11.1); what it computes comes from ONNX Runtime, and its times are
made up: 3 ms for a float model, 2 ms for a quantised one.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path

_COMMON = {
    "onnx", "loadEngine", "saveEngine", "skipInference", "profilingVerbosity", "timingCacheFile",
    "memPoolSize", "stronglyTyped", "noTF32", "useDLACore", "allowGPUFallback", "exposeDMA", "useSpinWait",
    "iterations", "duration", "warmUp", "loadInputs", "exportTimes", "exportLayerInfo",
    "dumpRawBindingsToFile",
}  # fmt: skip
_ELEVEN = {"includeDataTransfers", "noCudaGraph", "noSpinWait"}
_NAMES = {"float32": "fp32", "float16": "fp16", "int64": "int64", "int32": "int32", "uint8": "uint8"}


class TrtexecError(Exception):
    """What the real program says with severity error."""


def main(version: str, log: str, arguments: list[str]) -> int:
    head = f"TensorRT.trtexec [TensorRT v{version}] # trtexec {' '.join(arguments)}"
    print(f"&&&& RUNNING {head}")
    with Path(log).open("a") as lines:
        lines.write(" ".join(arguments) + "\n")
    given = dict(entry.removeprefix("--").partition("=")[::2] for entry in arguments)
    eleven = int(version) >= 110000
    try:
        unknown = given.keys() - _COMMON - (_ELEVEN if eleven else set())
        if unknown:
            raise TrtexecError(f"Unknown option: --{min(unknown)}")
        say("=== Device Information ===")
        say("Selected Device: Orin")
        say("Compute Capability: 8.7")
        model = built(given, version) if "onnx" in given else loaded(given, version)
        if "exportLayerInfo" in given:
            Path(given["exportLayerInfo"]).write_text(json.dumps(layers(model)))
        if "skipInference" not in given:
            infer(model, given, eleven=eleven)
    except TrtexecError as error:
        print(f"[11/22/2026-01:00:00] [E] {error}", file=sys.stderr)
        print(f"&&&& FAILED {head}")
        return 1
    print(f"&&&& PASSED {head}")
    return 0


def say(text: str) -> None:
    print(f"[11/22/2026-01:00:00] [I] {text}")


def built(given: dict[str, str], version: str) -> bytes:
    model = Path(given["onnx"]).read_bytes()
    if b"bad zero point" in model:
        Path(given["saveEngine"]).write_bytes(b"half")
        raise TrtexecError("[TRT] Error[4]: the zero point must be all zeros")
    if int(given.get("useDLACore", 0)) > 1:
        raise TrtexecError(f"Cannot create DLA engine, {given['useDLACore']} not available")
    Path(given["saveEngine"]).write_bytes(b"engine of " + version.encode() + b"\n" + model)
    with Path(given["timingCacheFile"]).open("ab") as timings:
        timings.write(b"timed ")
    return model


def loaded(given: dict[str, str], version: str) -> bytes:
    path = Path(given["loadEngine"])
    head, _, model = path.read_bytes().partition(b"\n") if path.exists() else (b"", b"", b"")
    if head != b"engine of " + version.encode():
        raise TrtexecError(
            "[TRT] IRuntime::deserializeCudaEngine: Error Code 1: Serialization (version tag does not match)"
            if path.exists()
            else f"Error opening engine file: {path}"
        )
    return model


def layers(model: bytes) -> dict[str, object]:
    import onnx

    graph = onnx.load_from_string(model).graph
    quantised = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    types = {True: "Int8", False: "Float"}
    found = [
        {
            "Name": node.name,
            "LayerType": "CaskConvolution",
            "Inputs": [{"Datatype": types[node.input[0] in quantised]}],
            "Weights": {"Type": types[node.input[1] in quantised]},
            "Metadata": f"[ONNX Layer: {node.name}]",
        }
        for node in graph.node
        if node.op_type == "Conv"
    ]
    return {"Layers": found}


def infer(model: bytes, given: dict[str, str], *, eleven: bool) -> None:
    runs = int(given.get("iterations", 10))
    if "exportTimes" in given:
        base = 2.0 if b"DequantizeLinear" in model else 3.0
        # 11 infers once more: for a comparison with references, whether there are any or not.
        runs = max(runs, int(float(given["duration"]) * 1e3 / base)) + eleven
        rows = [base * (1 + 0.01 * (number % 3)) for number in range(runs)]
        listed = [json.dumps({"computeMs": row - 0.2, "latencyMs": row}) for row in rows]
        Path(given["exportTimes"]).write_text("[\n  " + "\n, ".join(listed) + "\n]\n")
    if "dumpRawBindingsToFile" not in given:
        return
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for entry in session.get_inputs():
        dtype = np.dtype({"tensor(float)": "float32", "tensor(float16)": "float16"}[entry.type])
        values = np.random.default_rng(0).uniform(-1, 1, entry.shape).astype(dtype)
        name, _, path = given.get("loadInputs", "").rpartition(":")
        if name == entry.name:
            content = Path(path).read_bytes()
            if len(content) not in (values.nbytes, 2 * values.nbytes):
                raise TrtexecError(
                    f"Uncaught exception detected: Unexpected file size for input file: {path}."
                )
            values = np.frombuffer(content[: values.nbytes], dtype).reshape(entry.shape)
        elif name:
            raise TrtexecError(f'Cannot find input tensor with name "{name}" in the engine bindings!')
        feeds[entry.name] = values
    names = [entry.name for entry in session.get_outputs()]
    made = dict(zip(names, session.run(names, feeds), strict=True))
    # 11 fetches outputs only where transfers, exportOutput or dumpOutput are asked for.
    fetched = not eleven or "includeDataTransfers" in given
    for kind, tensors in (("output", made), ("input", feeds)):
        for name, values in tensors.items():
            dump(kind, name, values if fetched or kind == "input" else np.zeros_like(values))


def dump(kind: str, name: str, values: object) -> None:
    sizes, dtype = ".".join(map(str, values.shape)), _NAMES[values.dtype.name]  # type: ignore[attr-defined]
    file = f"{re.sub(r'[^A-Za-z0-9._,-]', '_', name)}.{kind}.{sizes}.{dtype}.raw"
    say(f"Writing file for {kind} binding {name} (with datatype {dtype} and dimensions {sizes}) to {file}")
    Path(file).write_bytes(values.tobytes())  # type: ignore[attr-defined]


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
