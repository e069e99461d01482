import json

import pytest

from edgeq.runtimes.base import LayerPrecision
from edgeq.runtimes.tensorrt.layers import Wanted, audit_layers, layers_from_json, layers_from_log

CONV = (
    "Name: Conv_41_myl0_4, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,4,416,416], Strides: "
    "[692224,1,1664,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], "
    "Constants: [ { Name: w, Dimensions: [16,4,6,6], Datatype: Int8, Format: a }, { Name: s, Dimensions: "
    "[1,16,1,1], Datatype: Float, Format: a }], Outputs: [ { Name: y, Dimensions: [1,16,208,208], Datatype: "
    "Float, Format: (NHWC) }], TacticName: t_0x1, StreamId: 0, Metadata: [ONNX Layer: Conv_41]"
)
SILU = (
    "Name: __myl_MulAddSilu_myl0_5, LayerType: kgen, Inputs: [ { Name: y, Datatype: Float }], Constants: "
    "[ { Name: b, Datatype: Float }], Outputs: [ { Name: z, Datatype: Float }], TacticName: k, StreamId: 0, "
    "Metadata: [ONNX Layer: Conv_41][ONNX Layer: Sigmoid_42][ONNX Layer: Mul_43]"
)
PRODUCT = (
    "Name: mm, LayerType: gemm, Inputs: [ { Name: a, Datatype: Int8 }, { Name: b, Datatype: Int8 }], "
    "Outputs: [ { Name: c, Datatype: Float }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: MatMul_1]"
)
WAIT = "Name: w, LayerType: wait, Inputs: [], Outputs: [], TacticName: , Metadata: "


def test_a_layer_of_the_build_log():
    layer, _, _ = layers_from_log([CONV, SILU, "[I] something else", WAIT, PRODUCT, ""])
    assert (layer.name, layer.kind, layer.nodes) == ("Conv_41_myl0_4", "correlation", ("Conv_41",))
    assert (layer.inputs, layer.weights, layer.outputs) == (("int8",), ("int8", "float"), ("float",))
    assert layer.int8


def test_two_int8_inputs_are_an_int8_product_and_an_activation_is_none():
    conv, silu, product = layers_from_log([CONV, SILU, PRODUCT])
    assert (conv.int8, silu.int8, product.int8) == (True, False, True)


def test_the_epilogue_of_a_convolution_does_not_make_it_float():
    layers = layers_from_log([SILU, CONV])
    (found,) = audit_layers(layers, [Wanted("Conv_41", "Conv", "")], {})
    assert (found.precision, found.kernel) == (LayerPrecision.INT8, "correlation")


def test_float_has_the_reason_of_the_plan_then_of_the_rules_then_the_engines():
    layers = layers_from_log([CONV.replace("Int8", "Float")])
    wanted = [Wanted("Conv_41", "Conv", "rule")]
    assert audit_layers(layers, wanted, {"Conv_41": "plan"})[0].reason == "plan"
    assert audit_layers(layers, wanted, {})[0].reason == "rule"
    assert "computes it from float" in audit_layers(layers, [Wanted("Conv_41", "Conv", "")], {})[0].reason


def test_a_node_that_no_layer_names_is_not_counted_as_int8():
    (found,) = audit_layers((), [Wanted("gone", "Conv", "")], {})
    assert found.precision is LayerPrecision.OTHER
    assert "no layer of the engine names it" in found.reason


@pytest.mark.parametrize(
    "types",
    [
        {"Inputs": [{"Name": "x", "Datatype": "Int8"}], "Constants": [{"Name": "w", "Datatype": "Int8"}]},
        {
            "Inputs": [
                {"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
            ],
            "Weights": {"Type": "Int8", "Count": 9408},
        },
    ],
    ids=["TensorRT 11", "TensorRT 10"],
)
def test_both_schemas_of_the_engine_inspector(types):
    entry = {
        "Name": "c",
        "LayerType": "CaskConvolution",
        "Outputs": [{"Name": "y", "Datatype": "Float"}],
        "Metadata": "[ONNX Layer: /model.0/conv/Conv]",
        **types,
    }
    (layer,) = layers_from_json(
        json.dumps({"Layers": [entry, {"LayerType": "NoOp"}, "name only"], "Bindings": []})
    )
    assert layer.nodes == ("/model.0/conv/Conv",)
    assert layer.int8


def test_half_precision_of_older_versions():
    entry = {
        "Name": "c",
        "LayerType": "conv",
        "Inputs": [{"Format/Datatype": "Row major linear FP16 format"}],
    }
    (layer,) = layers_from_json(json.dumps({"Layers": [entry]}))
    assert layer.inputs == ("fp16",)
    assert not layer.int8


@pytest.mark.parametrize("text", ["not json", "[]", '{"Layers": 1}', "{}"])
def test_what_no_inspector_says_is_an_error(text):
    with pytest.raises(ValueError):
        layers_from_json(text)
