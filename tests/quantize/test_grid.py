"""The grid: zero exact, ends held, and the same rounding as ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgeq.quantize.grid import Affine, Range, affine, fake_quantize
from edgeq.types import IntegerType

RANGES = [(-1.0, 1.0), (-0.278, 138.0), (0.0, 6.0), (-7.5, 0.0), (3.0, 9.0), (-9.0, -3.0), (-1e-6, 2e3)]
TYPES = [IntegerType.UINT8, IntegerType.INT8]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("ends", RANGES)
def test_zero_is_exact_and_the_ends_are_held(ends, symmetric, dtype):
    grid = affine(Range(*ends), dtype, symmetric=symmetric)
    low, high = dtype.limits
    assert low <= grid.zero_point <= high
    assert fake_quantize(np.zeros(1), grid)[0] == 0.0
    held = fake_quantize(np.asarray(ends), grid)
    # The zero point is rounded, which moves both ends by at most half a step.
    assert np.abs(held - ends).max() <= 0.5 * grid.scale * (1 + 1e-5) or symmetric
    assert grid.range.low <= min(ends[0], 0) + 0.5001 * grid.scale
    assert grid.range.high >= max(ends[1], 0) - 0.5001 * grid.scale


@pytest.mark.parametrize(("dtype", "middle"), [(IntegerType.INT8, 0), (IntegerType.UINT8, 128)])
@pytest.mark.parametrize("ends", RANGES)
def test_symmetric_grids_have_their_zero_in_the_middle(ends, dtype, middle):
    grid = affine(Range(*ends), dtype, symmetric=True)
    assert grid.zero_point == middle
    assert grid.scale == pytest.approx(max(map(abs, ends)) / 127, rel=1e-6)
    values = np.random.default_rng(0).uniform(-1, 1, 1000) * max(map(abs, ends))
    np.testing.assert_array_equal(fake_quantize(-values, grid), -fake_quantize(values, grid))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("ends", [(0.0, 0.0), (0.0, 1e-30), (-1e-38, 0.0)])
def test_the_scale_of_a_dead_tensor_is_a_normal_float32(ends, dtype):
    for symmetric in (False, True):
        grid = affine(Range(*ends), dtype, symmetric=symmetric)
        assert np.float32(grid.scale) >= np.finfo(np.float32).tiny
        assert np.isfinite(fake_quantize(np.asarray([0.0, 1.0]), grid)).all()


def test_the_scale_is_what_the_runtime_holds():
    for ends in RANGES:
        scale = affine(Range(*ends), IntegerType.UINT8, symmetric=False).scale
        assert scale == float(np.float32(scale))


def test_the_error_inside_the_range_is_at_most_half_a_step():
    values = np.random.default_rng(0).uniform(-3, 5, 10000)
    grid = affine(Range(-3, 5), IntegerType.UINT8, symmetric=False)
    assert np.abs(fake_quantize(values, grid) - values).max() <= 0.5 * grid.scale * (1 + 1e-5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scale", [0.5, 0.0123, 1 / 256, 3.7])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_rounding_is_onnx_runtimes_ties_included(dtype, scale, share):
    low, high = dtype.limits
    grid = Affine(float(np.float32(scale)), int(low + share * (high - low)), dtype)
    random = np.random.default_rng(1)
    ties = (np.arange(-300, 300) + 0.5) * np.float32(grid.scale)
    values = np.concatenate([ties, random.normal(size=4000) * 200 * scale, [0.0, 1e9, -1e9]])
    values = values.astype(np.float32)
    np.testing.assert_array_equal(fake_quantize(values, grid).astype(np.float32), onnx_pair(values, grid))


def onnx_pair(values, grid):
    kind = TensorProto.UINT8 if grid.dtype is IntegerType.UINT8 else TensorProto.INT8
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [grid.scale]),
            helper.make_tensor("zero", kind, [], [grid.zero_point]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]
