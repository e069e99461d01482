"""INT8: each op on the device's integers, against the QDQ graph that simulates it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from edgeq.errors import ModelError
from edgeq.quantize.insert import model_bytes
from edgeq.quantize.recipe import Precision, Rule
from edgeq.runtimes.base import LowerOptions, SessionOptions
from edgeq.runtimes.tflite.integer_part import integer_part
from edgeq.runtimes.tflite.lower import convert, lower
from edgeq.runtimes.tflite.scheme import scheme
from edgeq.runtimes.tflite.session import open_session
from edgeq.types import IntegerType
from tests.quantize.nets import NETS, PLAIN, Net, images, normalised, quantise, run, size_of, snr_db
from tests.runtimes.tflite.helpers import delegates, interpreter, ops, run_tflite

INT8 = scheme(IntegerType.INT8)


def upsampling_net():
    net = Net(seed=8)
    x = net.op("LeakyRelu", net.conv("images", 16, 3, stride=2, name="stem"), alpha=0.1)
    halves = net.op("Split", x, outputs=2, axis=1, channels=8)
    y = net.op("Sub", net.conv(halves[0], 8, name="left"), halves[1])
    scales = net.constant("scales", np.asarray([1, 1, 2, 2], np.float32))
    linear = net.op("Resize", y, "", scales, mode="linear", name="linear", channels=8)
    nearest = net.op(
        "Resize", y, "", scales, name="nearest", mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor", channels=8,
    )  # fmt: skip
    up = net.constant("up_w", net.random.normal(size=(16, 8, 2, 2)).astype(np.float32) / 8)
    transposed = net.op("ConvTranspose", x, up, name="transposed", strides=[2, 2], channels=8)
    return net.build(net.conv(net.concat(linear, nearest, transposed), 8, name="head"))


def pooled_net():
    net = Net(seed=9)
    x = net.relu(net.conv("images", 16, 3, stride=2, name="stem"))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    gate = net.op("Sigmoid", net.conv(net.op("GlobalAveragePool", x), 16, name="gate"))
    x = net.op("Mul", x, gate)
    x = net.conv(net.relu(net.conv(x, 16, 3, group=4, name="grouped")), 16, name="last")
    return net.build(net.reshape(net.op("Transpose", x, perm=[0, 2, 3, 1]), 1, 64, 16))


def mobile_net():
    """Hard-swish and squeeze-excitation as in MobileNetV3, a channel shuffle as in NanoDet's ShuffleNet."""
    net = Net(seed=10)
    x = net.op("HardSwish", net.conv("images", 16, 3, stride=2, name="stem"))
    gate = net.relu(net.conv(net.op("GlobalAveragePool", x), 8, name="squeeze"))
    gate = net.op("HardSigmoid", net.conv(gate, 16, name="excite"), alpha=1 / 6, beta=0.5)
    x = net.relu(net.conv(net.op("Mul", x, gate), 16, name="mix"))
    left, right = net.op("Split", x, outputs=2, axis=1, channels=8)
    right = net.relu(net.depthwise(right, name="depthwise"))
    parts = net.reshape(net.concat(left, right), 1, 2, 8, 16, 16)
    mixed = net.reshape(net.op("Transpose", parts, perm=[0, 2, 1, 3, 4]), 1, 16, 16, 16)
    net.channels[mixed] = 16
    x = net.op(
        "AveragePool", net.relu(net.conv(mixed, 16, name="after")), kernel_shape=[2, 2], strides=[2, 2]
    )
    return net.build(net.conv(x, 8, name="head"))


ALL = {**NETS, "mobile": mobile_net, "upsampling": upsampling_net, "pooled": pooled_net}


@pytest.fixture(scope="module", params=ALL)
def made(request):
    model = normalised(ALL[request.param]())
    plan, qdq = quantise(model, PLAIN, INT8)
    data = model_bytes(qdq)
    return request.param, model, plan, data, convert(data, LowerOptions())


def test_every_op_agrees_with_the_simulation_to_one_step(made):
    """Each op gets what TFLite itself fed it, so that rounding of the ops before does not count."""
    _, model, _, data, _ = made
    proto, tensors = with_inner_outputs(data)
    found = run_tflite(convert(proto.SerializeToString(), LowerOptions()), images(1, size=size_of(model))[0])
    checked = 0
    for nodes, written, grid in integer_nodes(proto, set(tensors)):
        node = nodes[0]
        want = alone(proto, nodes, found)
        steps = np.abs(
            np.clip(np.rint(want / grid[0]) + grid[1], -128, 127) - found[written] / grid[0] - grid[1]
        )
        assert steps.max() < 1.01, (node.op_type, node.name, steps.max())
        # A quotient half way between two steps may go either way, nothing else.
        # XNNPACK's LEAKY_RELU multiplies with 8 bits of the slope; quarters of a resize are often half way.
        share = {"LeakyRelu": 0.05, "Resize": 0.1}.get(node.op_type, 0.01)
        assert (steps > 0.5).mean() < share, (node.op_type, node.name, (steps > 0.5).mean())
        checked += 1
    assert checked >= 3


def test_the_result_is_the_simulations(made):
    name, model, _, data, tflite = made
    for image in images(2, size=size_of(model), seed=5):
        simulated = run(data, image)[0]
        found = run_tflite(tflite, image)["output0"]
        assert found.shape == simulated.shape
        assert snr_db(simulated, found) > 25, name


def test_xnnpack_takes_all_of_it_in_one_piece(made):
    _, _, _, _, tflite = made
    pieces, left = delegates(tflite)
    assert (pieces, left) == (1, [])


def test_int8_layers_are_int8_in_the_file(made):
    _, _, plan, _, tflite = made
    layers = [op for op in plan.ops.values() if op.op_type in ("Conv", "Gemm", "ConvTranspose", "MatMul")]
    expected = sum(op.precision is Precision.INT8 for op in layers)
    reader = interpreter(tflite, xnnpack=False)
    kinds = {entry["index"]: np.dtype(entry["dtype"]).name for entry in reader.get_tensor_details()}
    written = [
        kinds[int(entry["outputs"][0])]
        for entry in reader._get_ops_details()
        if entry["op_name"]
        in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")
    ]
    means = sum(op.op_type == "AveragePool" for op in plan.ops.values())
    assert written.count("int8") == expected + means
    assert len(written) == len(layers) + means


def with_inner_outputs(data: bytes):
    """The QDQ model with every rounded activation as an output too."""
    proto = onnx.load_from_string(data)
    constants = {entry.name for entry in proto.graph.initializer}
    known = {entry.name: entry for entry in proto.graph.value_info}
    already = {entry.name for entry in proto.graph.output}
    added = []
    for node in proto.graph.node:
        name = node.output[0]
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants and name in known:
            if name not in already:
                proto.graph.output.append(known[name])
            added.append(name)
    return proto, added


def integer_nodes(proto, tensors):
    """(node and the activation fused behind it, name of its rounded output, its grid) between pairs."""
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in proto.graph.initializer}
    readers: dict[str, list] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    makers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        after, nodes = readers.get(node.output[0], []), [node]
        if len(after) == 1 and after[0].op_type in ("Relu", "Clip"):
            nodes.append(after[0])
            after = readers.get(after[0].output[0], [])
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or [n.op_type for n in after] != [
            "QuantizeLinear"
        ]:
            continue
        back = readers[after[0].output[0]][0].output[0]
        inputs = [name for name in node.input if name and name not in arrays]
        pairs = all(name in makers and makers[name].op_type == "DequantizeLinear" for name in inputs)
        computed = [name for name in inputs if makers[name].input[0] not in arrays] if pairs else []
        if pairs and back in tensors and all(name in tensors for name in computed):
            yield nodes, back, (float(arrays[after[0].input[1]]), int(arrays[after[0].input[2]]))


def alone(proto, nodes, values):
    """Nodes in a row, in float, on given inputs; their constants come with their DequantizeLinear."""
    node = nodes[0]
    makers = {name: entry for entry in proto.graph.node for name in entry.output}
    arrays = {entry.name: entry for entry in proto.graph.initializer}
    before = [makers[name] for name in node.input if name in makers and makers[name].input[0] in arrays]
    feeds = {
        name: values[name]
        for name in node.input
        if name and name not in arrays and makers[name].input[0] not in arrays
    }
    used = {name for entry in (*before, *nodes) for name in entry.input}
    graph = helper.make_graph(
        [*before, *nodes], "one",
        [helper.make_tensor_value_info(name, 1, value.shape) for name, value in feeds.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)],
        [entry for name, entry in arrays.items() if name in used],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_inputs_of_a_concat_take_its_grid():
    """One rounding instead of two, and no op between: only what another op reads too is rounded again."""
    plan, qdq = quantise(normalised(NETS["concat"]()), PLAIN, INT8)
    concat = next(node for node in qdq.graph if node.op_type == "Concat")
    inputs = [value.producer().inputs[0].producer().inputs[0].name for value in concat.inputs]
    out = concat.outputs[0].name
    # "small" is read by the concatenation alone; "large" by the pool too, which hands its grid on.
    shared = [plan.tensors[name].method == f"shared with {out}" for name in inputs]
    assert shared == [True, False, False]
    assert plan.tensors[inputs[0]].grid == plan.tensors[out].grid
    plain, _ = quantise(normalised(NETS["concat"]()), PLAIN, replace(INT8, joining_ops=frozenset()))
    assert plain.tensors[inputs[0]].grid != plan.tensors[out].grid


def test_integer_inputs_and_outputs():
    model = normalised(NETS["relu6"]())
    _, qdq = quantise(model, PLAIN, INT8)
    data = model_bytes(qdq)
    made = interpreter(convert(data, LowerOptions(integer_io=True)))
    entry, result = made.get_input_details()[0], made.get_output_details()[0]
    assert entry["dtype"] == result["dtype"] == np.int8
    assert set(ops(convert(data, LowerOptions(integer_io=True)))) <= {
        "PAD",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "TRANSPOSE",
    }
    image = images(1)[0]
    scale, zero = entry["quantization"]
    made.set_tensor(
        entry["index"],
        np.clip(np.rint(image.transpose(0, 2, 3, 1) / scale) + zero, -128, 127).astype(np.int8),
    )
    made.invoke()
    scale, zero = result["quantization"]
    found = (made.get_tensor(result["index"]).astype(np.float32) - zero) * scale
    assert snr_db(run(data, image)[0], found) > 30


def test_integer_outputs_need_an_integer_tail():
    _, qdq = quantise(normalised(NETS["yolov8"]()), PLAIN, INT8)
    with pytest.raises(Exception, match="output 'output0' cannot be an integer"):
        convert(model_bytes(qdq), LowerOptions(integer_io=True))


def test_a_layer_kept_in_float_is_float_between_its_neighbours():
    model = normalised(NETS["silu"]())
    names = {"depthwise": "kept"}
    _, qdq = quantise(model, PLAIN, INT8, kept_float=names)
    made = convert(model_bytes(qdq), LowerOptions())
    assert ops(made)["DEQUANTIZE"] >= 1
    image = images(1)[0]
    assert snr_db(run(model_bytes(qdq), image)[0], run_tflite(made, image)["output0"]) > 30


def test_float16_weights_halve_the_file_and_stay_in_xnnpack():
    net = Net(seed=3)
    x = net.relu(net.conv("images", 64, 3, name="a"))
    data = model_bytes(
        normalised(net.build(net.conv(net.relu(net.conv(x, 64, 3, name="b")), 64, 3, name="c")))
    )
    full, half = convert(data, LowerOptions()), convert(data, LowerOptions(float16_weights=True))
    assert len(half) < 0.6 * len(full)
    assert delegates(half) == (1, [])
    image = images(1)[0]
    assert snr_db(run(data, image)[0], run_tflite(half, image)["output0"]) > 55


def test_dynamic_range_stores_int8_weights_and_computes_without_calibration():
    net = Net(seed=3)
    x = net.relu(net.conv("images", 64, 3, name="a"))
    data = model_bytes(
        normalised(net.build(net.conv(net.relu(net.conv(x, 64, 3, name="b")), 64, 3, name="c")))
    )
    full, small = convert(data, LowerOptions()), convert(data, LowerOptions(dynamic_range=True))
    assert len(small) < 0.4 * len(full)
    image = images(1)[0]
    assert snr_db(run(data, image)[0], run_tflite(small, image)["output0"]) > 30


@pytest.mark.parametrize("name", ALL)
def test_int16_activations_agree_with_the_simulation(name):
    model = normalised(ALL[name]())
    _, qdq = quantise(model, PLAIN, scheme(IntegerType.INT16))
    data = model_bytes(qdq)
    image = images(1, size=size_of(model))[0]
    simulated = run(data, image)[0]
    found = run_tflite(convert(data, LowerOptions()), image)["output0"]
    # One step of an int16 grid is 90 dB down; what is left comes from LOGISTIC's table of 512 entries.
    assert snr_db(simulated, found) > 65


@pytest.mark.parametrize("name", ["yolov8", "yolox", "silu"])
def test_an_integer_model_leaves_its_decoding_to_a_float_tail(name, tmp_path):
    model = normalised(ALL[name]())
    _, qdq = quantise(model, PLAIN, INT8)
    data = model_bytes(qdq)
    artifact = lower(data, tmp_path, LowerOptions(name="m", integer_io=True))
    body = artifact.path.read_bytes()
    assert {
        np.dtype(entry["dtype"]).name for entry in interpreter(body, xnnpack=False).get_tensor_details()
    } <= {
        "int8",
        "int32",
    }
    image = images(1, size=size_of(model))[0]
    found = dequantised_outputs(body, image)
    if name != "silu":
        assert [path.name for path in artifact.files] == ["m.tflite", "m.tail.tflite"]
        runner = interpreter(artifact.files[1].read_bytes()).get_signature_runner()
        assert set(runner.get_input_details()) == set(found)
        found = runner(**found)
    assert snr_db(run(data, image)[0], found["output0"]) > 25


def test_integers_end_where_the_float_tail_reads(tmp_path):
    model = normalised(NETS["yolov8"]())
    _, qdq = quantise(model, PLAIN, INT8)
    data = model_bytes(qdq)
    whole = lower(data, tmp_path, LowerOptions(name="m"))
    integer = lower(data, tmp_path, LowerOptions(name="i", integer_io=True))
    image = images(1, size=size_of(model))[0].transpose(0, 2, 3, 1)
    found = []
    for artifact in (whole, integer):
        part = integer_part(artifact.path, tmp_path)
        session = open_session(part.path, SessionOptions())
        assert part.begins | part.ends == {info.name for info in session.outputs}
        assert set(session.details["output_dtype"].split(", ")) == {"int8"}
        assert "tail" not in session.details
        made = session.infer(image)
        found.append(sorted(float(made[name].sum()) for name in part.ends))
    assert found[0] == found[1]
    plain = lower(model_bytes(model), tmp_path, LowerOptions(name="f"))
    assert integer_part(plain.path, tmp_path) is None


def dequantised_outputs(data, image):
    made = interpreter(data)
    entry = made.get_input_details()[0]
    scale, zero = entry["quantization"]
    integers = np.rint(image.transpose(0, 2, 3, 1) / scale) + zero
    runner = made.get_signature_runner()
    (name,) = runner.get_input_details()
    outputs = runner(**{name: np.clip(integers, -128, 127).astype(np.int8)})
    grids = {key: entry["quantization"] for key, entry in runner.get_output_details().items()}
    return {
        key: (value.astype(np.float32) - np.float32(grids[key][1])) * np.float32(grids[key][0])
        for key, value in outputs.items()
    }


def test_an_integer_model_cannot_have_a_float_layer_inside(tmp_path):
    _, qdq = quantise(normalised(NETS["silu"]()), PLAIN, INT8, kept_float={"depthwise": "kept"})
    with pytest.raises(ModelError, match=r"float layers between integer ones: depthwise"):
        lower(model_bytes(qdq), tmp_path, LowerOptions(integer_io=True))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def classifier():
    """QDQ model and file of a classifier whose last layer computes in float."""
    _, qdq = quantise(normalised(NETS["classifier"]()), replace(PLAIN, float_heads=True), INT8)
    data = model_bytes(qdq)
    return data, convert(data, LowerOptions())


def test_the_last_weights_of_a_classifier_are_int8_in_the_file(classifier):
    _, tflite = classifier
    reader = interpreter(tflite, xnnpack=False)
    details = {entry["index"]: entry for entry in reader.get_tensor_details()}
    (last,) = (entry for entry in reader._get_ops_details() if entry["op_name"] == "FULLY_CONNECTED")
    assert all(details[int(index)]["dtype"] is np.float32 for index in (*last["inputs"], *last["outputs"]))
    source = next(op for op in reader._get_ops_details() if last["inputs"][1] in op["outputs"])
    stored = details[int(source["inputs"][0])]
    assert (source["op_name"], stored["dtype"]) == ("DEQUANTIZE", np.int8)
    assert stored["quantization_parameters"]["scales"].size == stored["shape"][0] > 1
    assert delegates(tflite) == (1, [])


@pytest.mark.parametrize("xnnpack", [True, False])
def test_int8_weights_of_a_float_layer_are_those_of_the_simulation(classifier, xnnpack):
    """The layer gets the same integers from both, so only its own float sums may differ."""
    data, tflite = classifier
    for image in images(3, seed=7):
        found = run_tflite(tflite, image, xnnpack=xnnpack)["output0"]
        assert snr_db(run(data, image)[0], found) > 30


def test_a_rule_that_wants_float_keeps_float_weights():
    rule = Rule("classifier", Precision.FLOAT)
    _, qdq = quantise(normalised(NETS["classifier"]()), replace(PLAIN, float_heads=True, rules=(rule,)), INT8)
    assert ops(convert(model_bytes(qdq), LowerOptions()))["DEQUANTIZE"] == 1
