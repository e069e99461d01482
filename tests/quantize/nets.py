"""Small seeded ONNX networks, and what the tests ask about them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgeq.model.normalize import Parity, normalise
from edgeq.model.source import FloatModel
from edgeq.quantize.auto import choose_grids
from edgeq.quantize.insert import insert_qdq, model_bytes
from edgeq.quantize.observe import Observer
from edgeq.quantize.pipeline import CalibrationSet
from edgeq.quantize.planner import build_plan
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.runtimes.onnxruntime.scheme import scheme
from edgeq.types import HeadFamily, HeadSpec, InputSpec, IntegerType, ResizeRule, Sample

UINT8 = scheme(IntegerType.UINT8)
INT8 = scheme(IntegerType.INT8)
PLAIN = Recipe(range=RangeMethod.MINMAX, bias_correction=False, float_heads=False, max_predicted_drop=None)
"""Everything INT8, nothing measured."""


class Net:
    """Builds a graph op by op; a value is its name, and node names are given or counted."""

    def __init__(self, *, size=32, channels=3, opset=17, seed=0, batch=1):
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.input = "images"
        self.inputs = [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, channels, size, size])
        ]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.channels = {"images": channels}

    def constant(self, name, array):
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def op(self, op_type, *inputs, name=None, channels=None, outputs=1, domain="", **attributes):
        name = name or f"{op_type.lower()}{len(self.nodes)}"
        made = [f"{name}_out"] if outputs == 1 else [f"{name}_out{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), made, name=name, domain=domain, **attributes)
        )
        for value in made:
            self.channels[value] = channels or self.channels.get(inputs[0], 0)
        return made[0] if outputs == 1 else made

    def conv(self, x, out, k=1, *, name=None, group=1, stride=1, pads=None, bias=True, gain=1.0, weight=None):
        name = name or f"conv{len(self.nodes)}"
        inside = self.channels[x] // group
        if weight is None:
            weight = self.random.normal(size=(out, inside, k, k)) * gain / np.sqrt(inside * k * k)
        entries = [x, self.constant(f"{name}_w", np.asarray(weight, np.float32))]
        if bias is not False:
            values = self.random.normal(size=out) * 0.2 if bias is True else bias
            entries.append(self.constant(f"{name}_b", np.asarray(values, np.float32)))
        padding = [k // 2] * 4 if pads is None else pads
        return self.op(
            "Conv", *entries, name=name, channels=out, group=group, strides=[stride] * 2,
            kernel_shape=[k, k], pads=padding,
        )  # fmt: skip

    def depthwise(self, x, k=3, **options):
        return self.conv(x, self.channels[x], k, group=self.channels[x], **options)

    def relu(self, x):
        return self.op("Relu", x)

    def relu6(self, x):
        low, high = self.constant("zero", np.float32(0)), self.constant("six", np.float32(6))
        return self.op("Clip", x, low, high)

    def silu(self, x):
        return self.op("Mul", x, self.op("Sigmoid", x))

    def concat(self, *values, axis=1):
        return self.op("Concat", *values, axis=axis, channels=sum(self.channels[v] for v in values))

    def reshape(self, x, *shape):
        name = self.constant(f"shape{len(self.nodes)}", np.asarray(shape, np.int64))
        return self.op("Reshape", x, name)

    def gemm(self, x, inputs, outputs, *, name="gemm", bias=None):
        weight = self.constant(f"{name}_w", self.random.normal(size=(outputs, inputs)).astype(np.float32))
        values = self.random.normal(size=outputs) if bias is None else bias
        entries = [x, weight, self.constant(f"{name}_b", np.asarray(values, np.float32))]
        return self.op("Gemm", *entries, name=name, transB=1)

    def build(self, *outputs, metadata=None, check=True, direct=False):
        """The source as an exporter would write it.

        Outputs get the names ``output0``, ... by an Identity, which normalisation folds into their
        makers; with ``direct`` they are inner tensors under their own names.
        """
        names = list(outputs) if direct else [f"output{index}" for index in range(len(outputs))]
        for index, value in enumerate([] if direct else outputs):
            self.nodes.append(helper.make_node("Identity", [value], [names[index]], name=f"identity{index}"))
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        graph = helper.make_graph(self.nodes, "net", self.inputs, made, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        if check:
            model = onnx.shape_inference.infer_shapes(model)
            onnx.checker.check_model(model)
        for key, value in (metadata or {}).items():
            model.metadata_props.add(key=key, value=value)
        return model


def normalised(proto: onnx.ModelProto) -> ir.Model:
    """What the quantiser gets to see."""
    return ir.serde.deserialize_model(onnx.load_from_string(normalised_bytes(proto)))


def normalised_bytes(proto: onnx.ModelProto) -> bytes:
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    return normalise(proto, input_name=proto.graph.input[0].name, input_shape=shape)[0]


# Networks


def silu_net(*, size=32, gain=1.0, seed=0):
    """Stem, depthwise and pointwise convolutions with SiLU, one head: YOLOX in miniature."""
    net = Net(size=size, seed=seed)
    x = net.silu(net.conv("images", 16, 3, stride=2, name="stem", gain=gain))
    x = net.silu(net.depthwise(x, name="depthwise"))
    x = net.silu(net.conv(x, 24, name="pointwise"))
    return net.build(net.conv(x, 8, name="head"))


def residual_net():
    net = Net(seed=1)
    x = net.silu(net.conv("images", 16, 3, stride=2, name="stem"))
    y = net.silu(net.conv(x, 16, 3, name="branch"))
    x = net.op("Add", x, y, name="residual")
    return net.build(net.conv(net.relu(net.conv(x, 12, 3, name="after")), 8, name="head"))


def concat_net():
    """Two branches whose ranges differ fifty-fold, pooled and resized."""
    net = Net(seed=2)
    x = net.relu(net.conv("images", 16, 3, stride=2, name="stem"))
    small = net.relu(net.conv(x, 8, name="small", gain=0.1))
    large = net.relu(net.conv(x, 8, name="large", gain=5.0))
    pooled = net.op("MaxPool", large, name="pool", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    both = net.concat(small, large, pooled)
    scales = net.constant("scales", np.asarray([1, 1, 2, 2], np.float32))
    up = net.op(
        "Resize", both, "", scales, name="up", mode="nearest", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor", channels=net.channels[both],
    )  # fmt: skip
    return net.build(net.conv(net.relu(net.conv(up, 12, 3, name="after")), 8, name="head"))


def relu6_net(seed=3):
    """MobileNetV2 in miniature; gains reach well over 6, so that the clip works."""
    net = Net(seed=seed)
    x = net.relu6(net.conv("images", 16, 3, stride=2, name="stem", gain=10.0))
    x = net.relu6(net.depthwise(x, name="depthwise", gain=2.0))
    x = net.conv(x, 8, name="project")
    x = net.relu6(net.conv(x, 24, name="expand", gain=3.0))
    return net.build(net.conv(x, 8, name="head"))


def classifier_net(*, seed=4):
    net = Net(seed=seed)
    x = net.relu(net.conv("images", 16, 3, stride=2, name="stem"))
    x = net.relu(net.conv(x, 32, 3, stride=2, name="second"))
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="pool"), axis=1)
    return net.build(net.gemm(x, 32, 10, name="classifier"))


def yolov8_net(*, classes=2, bins=16, size=32):
    """One level of a YOLOv8 head: boxes through DFL (softmax, 1x1 convolution), scores through sigmoid."""
    net = Net(seed=5, size=size)
    x = net.silu(net.conv("images", 16, 3, stride=2, name="stem"))
    x = net.silu(net.depthwise(x, name="neck"))
    boxes = net.conv(net.silu(net.conv(x, 16, 3, name="box.0")), 4 * bins, name="box.1")
    scores = net.conv(net.silu(net.conv(x, 16, 3, name="cls.0")), classes, name="cls.1")
    n = (size // 2) ** 2
    both = net.reshape(net.concat(boxes, scores), 1, 4 * bins + classes, n)
    sizes = net.constant("sizes", np.asarray([4 * bins, classes], np.int64))
    box, cls = net.op("Split", both, sizes, name="split", axis=1, outputs=2)
    box = net.op("Transpose", net.reshape(box, 1, 4, bins, n), perm=[0, 2, 1, 3])
    box = net.op("Softmax", box, name="dfl.softmax", axis=1)
    net.channels[box] = bins
    box = net.conv(box, 1, name="dfl.conv", bias=False, weight=np.arange(bins).reshape(1, bins, 1, 1))
    box = net.op("Mul", net.reshape(box, 1, 4, n), net.constant("stride", np.float32(2)), name="decode")
    return net.build(net.concat(box, net.op("Sigmoid", cls, name="scores")))


def yolox_net():
    """One level of a YOLOX head: boxes, objectness and classes put together, undecoded."""
    net = Net(seed=6)
    x = net.silu(net.conv("images", 16, 3, stride=2, name="stem"))
    x = net.silu(net.depthwise(x, name="neck"))
    box = net.conv(x, 4, name="reg")
    objectness = net.op("Sigmoid", net.conv(x, 1, name="obj"), name="obj.sigmoid")
    cls = net.op("Sigmoid", net.conv(x, 2, name="cls"), name="cls.sigmoid")
    flat = net.reshape(net.concat(box, objectness, cls), 1, 7, 256)
    return net.build(net.op("Transpose", flat, perm=[0, 2, 1]))


def attention_net():
    """Self-attention over the positions: two products of two activations."""
    net = Net(seed=7, size=16)
    x = net.silu(net.conv("images", 16, 3, stride=2, name="stem"))
    # Large gains: the softmax shall pick some positions, not average over all.
    query, key, value = (
        net.reshape(net.conv(x, 16, name=name, gain=4.0), 1, 16, 64) for name in ("q", "k", "v")
    )
    scores = net.op("MatMul", net.op("Transpose", query, perm=[0, 2, 1]), key, name="scores")
    weights = net.op("Softmax", scores, name="softmax", axis=-1)
    mixed = net.op("MatMul", value, net.op("Transpose", weights, perm=[0, 2, 1]), name="mix")
    mixed = net.reshape(mixed, 1, 16, 8, 8)
    net.channels[mixed] = 16
    return net.build(net.conv(net.silu(net.conv(mixed, 16, name="proj")), 8, name="head"))


NETS = {
    "silu": silu_net,
    "residual": residual_net,
    "concat": concat_net,
    "relu6": relu6_net,
    "classifier": classifier_net,
    "yolov8": yolov8_net,
    "yolox": yolox_net,
    "attention": attention_net,
}


# Images and models


def images(count=4, *, size=32, channels=3, seed=0):
    """Smooth random inputs in 0..1, float32 (1, c, size, size)."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = random.random((5, 5, channels), dtype=np.float32)
        smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
        made.append(np.ascontiguousarray(smooth.reshape(size, size, channels).transpose(2, 0, 1)[None]))
    return made


def size_of(model: ir.Model) -> int:
    return int(model.graph.inputs[0].shape[2])


def run(data, image, names=None):
    """Outputs of a model without any optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    raw = data if isinstance(data, bytes) else data.SerializeToString()
    session = ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    return session.run(names, {session.get_inputs()[0].name: image})


def optimised(data: bytes) -> onnx.ModelProto:
    """The graph that ONNX Runtime really runs, as it writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return onnx.load(str(path))


def op_counts(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def quantise(model: ir.Model, recipe=PLAIN, target=UINT8, *, kept_float=None, shifts=None, pictures=None):
    """Plan and QDQ model of a normalised model."""
    pictures = images(size=size_of(model)) if pictures is None else pictures
    statistics = Observer(model).observe(pictures)
    grids = choose_grids(model, target, recipe, statistics, pictures[:2])
    plan = build_plan(model, target, recipe, grids, kept_float=kept_float, bias_shifts=shifts)
    return plan, insert_qdq(model, plan)


def qdq_bytes(model: ir.Model) -> bytes:
    return model_bytes(model)


def float_model(proto: onnx.ModelProto, *, family=HeadFamily.CLASSIFIER, classes=8) -> FloatModel:
    data = normalised_bytes(proto)
    size = proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    spec = InputSpec("images", size, size, resize=ResizeRule.STRETCH)
    head = HeadSpec(family, "output0", tuple(f"class{index}" for index in range(classes)))
    return FloatModel(data, spec, head, "net.onnx", Parity(0.0, 0.0, 17, 17), ())


def calibration_set(folder: Path, count: int, *, size=32) -> CalibrationSet:
    """Image files with made-up digests that tell them apart."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for index, image in enumerate(images(count, size=size, seed=11)):
        path = folder / f"{index:03}.png"
        cv2.imwrite(str(path), (image[0].transpose(1, 2, 0) * 255).astype(np.uint8))
        samples.append(Sample(path.name, path))
    digests = {sample.key: f"{index:064x}" for index, sample in enumerate(samples)}
    return CalibrationSet(tuple(samples), digests, str(folder), "train")


def snr_db(exact, rounded) -> float:
    signal = float(np.sum(np.square(exact, dtype=np.float64)))
    noise = float(np.sum(np.square(np.subtract(exact, rounded, dtype=np.float64))))
    return 10 * np.log10(signal / max(noise, 1e-30))
