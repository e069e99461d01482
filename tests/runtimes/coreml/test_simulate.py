"""The simulation of a float16 package gives the bits that its program, interpreted, gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeq.runtimes.coreml.scheme import scheme
from edgeq.runtimes.coreml.simulate import half_simulation
from tests.quantize import nets
from tests.runtimes.coreml.helpers import interpret, package

NETS = {
    "silu": nets.silu_net, "residual": nets.residual_net, "concat": nets.concat_net,
    "relu6": nets.relu6_net, "classifier": nets.classifier_net, "yolov8": nets.yolov8_net,
    "yolox": nets.yolox_net, "attention": nets.attention_net,
}  # fmt: skip


def outputs(data, picture):
    names = [output.name for output in onnx.load_from_string(data).graph.output]
    return dict(zip(names, nets.run(data, picture, names), strict=True))


@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_it_gives_the_programs_bits(name, quantised, tmp_path):
    model = nets.normalised(NETS[name]())
    data = nets.qdq_bytes(nets.quantise(model, target=scheme())[1] if quantised else model)
    picture = nets.images(1, size=nets.size_of(model))[0]
    exact, simulated = outputs(data, picture), outputs(half_simulation(data), picture)
    assert list(simulated) == list(exact)
    found = interpret(package(data, tmp_path, half=True), picture)
    for output, wanted in simulated.items():
        np.testing.assert_allclose(found[output], wanted, rtol=1e-6, atol=1e-7)
    assert any((simulated[output] != exact[output]).any() for output in exact)
