"""The whole way: interrupted and resumed, cached, repeated."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgeq.errors import CalibrationError, RecipeError
from edgeq.quantize import pipeline
from edgeq.quantize.cache import StatisticsCache, default_cache_folder
from edgeq.quantize.pipeline import CalibrationSet, quantize
from edgeq.quantize.recipe import Precision, RangeMethod, Recipe, Rule

from .nets import UINT8, calibration_set, classifier_net, float_model, run, silu_net, snr_db

PLAIN = Recipe(range=RangeMethod.MINMAX, bias_correction=False, max_predicted_drop=None)
COUNT = 70
"""Three chunks of at most 32 images."""


@pytest.fixture(scope="module")
def model():
    return float_model(silu_net())


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    return calibration_set(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture
def observed(monkeypatch):
    """Number of images that were really run, one entry per list."""
    counts = []
    original = pipeline.Observer.observe

    def counting(self, tensors, **options):
        seen = []
        counts.append(seen)
        return original(self, (seen.append(1) or tensor for tensor in tensors), **options)

    monkeypatch.setattr(pipeline.Observer, "observe", counting)
    return lambda: sum(len(seen) for seen in counts)


def first(calibration, count):
    return replace(calibration, samples=calibration.samples[:count])


@pytest.fixture(scope="module")
def uninterrupted(model, calibration, tmp_path_factory):
    return quantize(model, calibration, UINT8, PLAIN, cache_folder=tmp_path_factory.mktemp("cache"))


def interrupt_at(image):
    def progress(stage, done, total):
        if stage == "calibrate" and done >= image:
            raise KeyboardInterrupt

    return progress


def kept_images(folder):
    """Images in the pieces that the cache holds; every file has to be whole."""
    counts = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with np.load(path) as arrays:
            counts.append(json.loads(arrays["index"].tobytes())["image_count"])
    return sum(counts)


def test_an_interrupted_run_goes_on_where_it_stopped(model, calibration, uninterrupted, observed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        quantize(model, calibration, UINT8, PLAIN, cache_folder=tmp_path, progress=interrupt_at(60))
    before, kept = observed(), kept_images(tmp_path)
    assert 16 <= kept < COUNT
    again = quantize(model, calibration, UINT8, PLAIN, cache_folder=tmp_path)
    assert observed() - before == COUNT - kept
    assert again.statistics.to_bytes() == uninterrupted.statistics.to_bytes()
    assert again.qdq == uninterrupted.qdq
    assert not again.cache_hit


def test_interrupted_twice_nothing_is_observed_twice(model, calibration, uninterrupted, observed, tmp_path):
    for image in (50, 66):
        with pytest.raises(KeyboardInterrupt):
            quantize(model, calibration, UINT8, PLAIN, cache_folder=tmp_path, progress=interrupt_at(image))
    before, kept = observed(), kept_images(tmp_path)
    again = quantize(model, calibration, UINT8, PLAIN, cache_folder=tmp_path)
    assert observed() - before == COUNT - kept
    assert again.statistics.to_bytes() == uninterrupted.statistics.to_bytes()


def test_the_second_run_takes_the_statistics_from_the_cache(
    model, calibration, uninterrupted, observed, tmp_path
):
    quantize(model, calibration, UINT8, PLAIN, cache_folder=tmp_path)
    before = observed()
    again = quantize(model, calibration, UINT8, PLAIN, cache_folder=tmp_path)
    assert observed() == before
    assert again.cache_hit
    assert again.qdq == uninterrupted.qdq
    # One file for all images; the pieces are gone.
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_another_recipe_uses_the_same_statistics(model, calibration, observed, tmp_path):
    few = first(calibration, 20)
    quantize(model, few, UINT8, PLAIN, cache_folder=tmp_path)
    before = observed()
    assert quantize(model, few, UINT8, replace(PLAIN, range=RangeMethod.MSE), cache_folder=tmp_path).cache_hit
    assert observed() == before


def test_another_model_image_or_preprocessing_does_not(model, calibration, observed, tmp_path):
    few = first(calibration, 17)
    quantize(model, few, UINT8, PLAIN, cache_folder=tmp_path)
    other_spec = replace(model, input=replace(model.input, pad_value=0))
    other_model = float_model(silu_net(seed=1))
    changed = CalibrationSet(
        few.samples, {**few.digests, few.samples[3].key: "f" * 64}, few.origin, few.split
    )
    reordered = replace(few, samples=few.samples[::-1])
    cases = [(other_spec, few), (other_model, few), (model, changed), (model, reordered)]
    for index, (case, images) in enumerate(cases, start=2):
        assert not quantize(case, images, UINT8, PLAIN, cache_folder=tmp_path).cache_hit
        assert observed() == 17 * index


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "empty",
        "garbage",
        "flipped",
    ],
)
def test_a_damaged_entry_counts_as_missing(model, calibration, tmp_path, damage):
    few = first(calibration, 16)
    expected = quantize(model, few, UINT8, PLAIN, cache_folder=tmp_path)
    entry = next(path for path in tmp_path.rglob("*.npz"))
    data = entry.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    entry.write_bytes(
        {"truncated": data[: len(data) // 2], "empty": b"", "garbage": b"x" * 500, "flipped": bytes(flipped)}[
            damage
        ]
    )
    again = quantize(model, few, UINT8, PLAIN, cache_folder=tmp_path)
    assert not again.cache_hit
    assert again.qdq == expected.qdq
    assert entry.read_bytes() == data


def test_no_cache_writes_nothing_and_gives_the_same(model, calibration, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    got = quantize(model, calibration, UINT8, PLAIN, cache_folder=None)
    assert list(tmp_path.iterdir()) == []
    assert got.qdq == uninterrupted.qdq
    assert got.statistics.to_bytes() == uninterrupted.statistics.to_bytes()


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(model, calibration, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    got = quantize(model, first(calibration, 16), UINT8, PLAIN, cache_folder=blocked)
    assert got.statistics.image_count == 16


@pytest.mark.parametrize(
    "recipe", [Recipe(max_predicted_drop=None), Recipe(), replace(PLAIN, range=RangeMethod.ENTROPY)]
)
def test_the_same_inputs_give_the_same_bytes(calibration, recipe):
    model, few = float_model(classifier_net(), classes=10), first(calibration, 16)
    made = [quantize(model, few, UINT8, recipe, cache_folder=None) for _ in range(2)]
    assert made[0].qdq == made[1].qdq
    assert made[0].tuning == made[1].tuning
    assert made[0].layers == made[1].layers


def test_the_result_is_a_valid_model_close_to_the_float_one(model, calibration):
    got = quantize(model, first(calibration, 16), UINT8, Recipe(max_predicted_drop=None), cache_folder=None)
    proto = onnx.load_from_string(got.qdq)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.producer_name == "edgeq"
    picture = np.full((1, 3, 32, 32), 0.3, np.float32)
    picture[0, 0, 8:20] = 0.9
    assert snr_db(run(model.onnx_bytes, picture)[0], run(got.qdq, picture)[0]) > 25


def test_equalisation_happens_before_calibration_of_what_is_quantised(model, calibration, tmp_path):
    few = first(calibration, 16)
    recipe = replace(PLAIN, depthwise_equalization=True)
    got = quantize(model, few, UINT8, recipe, cache_folder=tmp_path)
    assert "stem_restore" in got.plan.ops
    assert "stem_restore" in {layer.node for layer in got.layers}
    assert quantize(model, few, UINT8, recipe, cache_folder=tmp_path).qdq == got.qdq
    picture = np.full((1, 3, 32, 32), 0.3, np.float32)
    assert snr_db(run(model.onnx_bytes, picture)[0], run(got.qdq, picture)[0]) > 20


def test_every_layer_is_reported(model, calibration):
    got = quantize(model, first(calibration, 16), UINT8, PLAIN, cache_folder=None)
    by_name = {layer.node: layer for layer in got.layers}
    assert list(by_name) == list(got.plan.ops)
    stem = by_name["stem"]
    assert (stem.precision, stem.op_type, stem.range_method) == ("int8", "Conv", "minmax")
    assert stem.noise > 0
    low, high = stem.float_range
    scale, zero = stem.grid
    assert -zero * scale == pytest.approx(low, abs=scale)
    assert (255 - zero) * scale == pytest.approx(high, abs=scale)
    assert by_name["head"].precision == "float"
    assert "prediction layer" in by_name["head"].reason
    data = json.loads(json.dumps(got.to_json()))
    assert data["image_count"] == 16
    assert data["int8_op_count"] + data["float_op_count"] == len(got.layers)
    assert {"calibrate", "ranges", "tune"} <= set(data["timings_s"])


def test_no_image_is_an_error_that_says_so(model, calibration):
    with pytest.raises(CalibrationError, match="no image"):
        quantize(model, first(calibration, 0), UINT8, PLAIN, cache_folder=None)


def test_a_rule_that_matches_nothing_is_an_error(model, calibration):
    recipe = PLAIN.with_rules(Rule("nowhere", Precision.FLOAT))
    with pytest.raises(RecipeError, match="nowhere"):
        quantize(model, first(calibration, 16), UINT8, recipe, cache_folder=None)


def test_progress_tells_stage_and_share(model, calibration):
    seen = []
    quantize(
        model, first(calibration, 40), UINT8, PLAIN, cache_folder=None,
        progress=lambda *event: seen.append(event),
    )  # fmt: skip
    done = [done for stage, done, _ in seen if stage == "calibrate"]
    assert done == sorted(done)
    assert done[-1] == 40
    assert all(total == 40 for stage, _, total in seen if stage == "calibrate")


def test_the_cache_folder_is_where_the_user_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "edgeq"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "edgeq"


def test_the_cache_tells_lists_apart_by_order_and_length(model, uninterrupted, tmp_path):
    cache = StatisticsCache(tmp_path, model_sha256="a", spec=model.input)
    cache.store(["1", "2"], uninterrupted.statistics)
    assert cache.load(["1", "2"]).to_bytes() == uninterrupted.statistics.to_bytes()
    for other in (["2", "1"], ["1"], ["12"], ["1", "2", ""]):
        assert cache.load(other) is None
    assert StatisticsCache(tmp_path, model_sha256="b", spec=model.input).load(["1", "2"]) is None
    cache.drop(["1", "2"])
    assert cache.load(["1", "2"]) is None
    cache.drop(["1", "2"])
