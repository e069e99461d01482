"""Recognition from names, shapes, metadata and operators."""

from __future__ import annotations

import pytest

from edgeq.errors import SpecError
from edgeq.model.presets import COCO_CLASS_NAMES, PRESETS, SpecOverrides
from edgeq.model.recognise import recognise
from edgeq.types import ColorOrder, HeadFamily, Layout, ResizeRule, TensorInfo

ULTRALYTICS = {"task": "detect", "stride": "32", "imgsz": "[640, 640]", "names": "{0: 'bolt', 1: 'nut'}"}


def info(name, *shape):
    return TensorInfo(name, shape, "float32")


def specs(*outputs, size=(416, 416), inputs=None, metadata=None, op_types=(), **overrides):
    return recognise(
        inputs=inputs or (info("images", 1, 3, *size),),
        outputs=[info(f"out{index}", *shape) for index, shape in enumerate(outputs)],
        metadata=metadata or {},
        op_types=frozenset(op_types),
        overrides=SpecOverrides(**overrides),
    )


@pytest.mark.parametrize(
    ("shape", "size", "metadata", "family", "classes"),
    [
        ((1, 3549, 85), (416, 416), {}, HeadFamily.YOLOX, 80),
        ((1, 10647, 85), (416, 416), {}, HeadFamily.YOLOV5, 80),
        ((1, 25200, 85), (640, 640), {}, HeadFamily.YOLOV5, 80),
        ((1, 84, 8400), (640, 640), {}, HeadFamily.YOLOV8, 80),
        ((1, 6, 8400), (640, 640), ULTRALYTICS, HeadFamily.YOLOV8, 2),
        ((1, 300, 6), (640, 640), {**ULTRALYTICS, "end2end": "True"}, HeadFamily.END_TO_END, 2),
        ((1, 8400, 6), (640, 640), {}, HeadFamily.YOLOX, 1),
        ((1, 6, 5040), (384, 640), ULTRALYTICS, HeadFamily.YOLOV8, 2),
        (("batch", 8400, 85), (640, 640), {}, HeadFamily.YOLOX, 80),
    ],
)
def test_detection_heads_from_shapes(shape, size, metadata, family, classes):
    got = specs(shape, size=size, metadata=metadata)
    assert got.head.family is family
    assert got.head.class_count == classes


def test_families_imply_their_customary_input():
    yolox = specs((1, 3549, 85)).input
    assert (yolox.color, yolox.mean, yolox.std) == (ColorOrder.BGR, (0, 0, 0), (1, 1, 1))
    assert yolox.resize is ResizeRule.LETTERBOX_TOPLEFT
    for shape in ((1, 10647, 85), (1, 84, 3549)):
        spec = specs(shape).input
        assert (spec.color, spec.std, spec.resize) == (
            ColorOrder.RGB,
            (255, 255, 255),
            ResizeRule.LETTERBOX_CENTER,
        )


def test_notes_say_what_was_recognised_and_from_what():
    notes = "\n".join(specs((1, 6, 8400), size=(640, 640), metadata=ULTRALYTICS, color=ColorOrder.BGR).notes)
    for words in (
        "640 x 640 NCHW (from the shape)",
        "yolov8",
        "8400 cells",
        "given: color",
        "names from the metadata",
    ):
        assert words in notes


def test_four_levels_are_told_by_the_number_of_cells():
    got = specs((1, 8500, 85), size=(640, 640))
    assert got.head.strides == (8, 16, 32, 64)


@pytest.mark.parametrize("op", ["Exp", "Sub"])
def test_a_grid_decoded_in_the_graph_is_ambiguous(op):
    with pytest.raises(SpecError, match="2 ways") as error:
        specs((1, 3549, 85), op_types={"Conv", op})
    assert "--family yolox" in str(error.value)
    assert "--family yolov5" in str(error.value)
    assert specs((1, 3549, 85), op_types={op}, family=HeadFamily.YOLOX).head.family is HeadFamily.YOLOX


def test_decoded_boxes_of_one_anchor_do_not_tell_their_input():
    with pytest.raises(SpecError, match="nothing tells how images are prepared") as error:
        specs((1, 3549, 85), op_types={"Exp"}, family=HeadFamily.YOLOV5)
    assert "--preset yolox" in str(error.value)
    got = specs((1, 3549, 85), op_types={"Exp"}, family=HeadFamily.YOLOV5, preset="yolox")
    assert got.head.family is HeadFamily.YOLOV5
    assert got.input.color is ColorOrder.BGR


def test_boxes_with_84_values_are_ambiguous_until_the_classes_are_known():
    with pytest.raises(SpecError, match="2 ways"):
        specs((1, 8400, 84), size=(640, 640))
    got = specs((1, 8400, 84), size=(640, 640), class_names=COCO_CLASS_NAMES)
    assert got.head.family is HeadFamily.YOLOV8


def test_a_classifier_without_metadata_is_an_error_that_lists_the_presets():
    with pytest.raises(SpecError) as error:
        specs((1, 1000), size=(224, 224))
    for name in ("imagenet", "tf-lite", "tf", "unit"):
        assert f"--preset {name}" in str(error.value)
    assert "--preset yolox" not in str(error.value)


def test_presets_and_single_values():
    lite = specs((1, 1000), size=(224, 224), preset="tf-lite").input
    assert (lite.mean[0], lite.std[0], lite.short_side_px) == (127, 128, 256)
    assert specs((1, 1000), size=(299, 299), preset="imagenet").input.short_side_px == 342
    own = specs((1, 1000), size=(224, 224), preset="tf", short_side_px=224, std=(1, 2, 3)).input
    assert (own.mean, own.std, own.short_side_px) == ((127.5,) * 3, (1, 2, 3), 224)
    with pytest.raises(SpecError, match="no preset 'tflite'"):
        specs((1, 1000), size=(224, 224), preset="tflite")


def test_an_ultralytics_classifier_needs_no_preset():
    got = specs((1, 2), size=(224, 224), metadata={**ULTRALYTICS, "task": "classify"})
    assert got.head.family is HeadFamily.CLASSIFIER
    assert got.input.resize is ResizeRule.CENTER_CROP
    assert (got.input.short_side_px, got.input.std) == (224, PRESETS["unit"].std)


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_other_tasks_are_refused(task):
    with pytest.raises(SpecError, match=f"task '{task}'"):
        specs((1, 38, 8400), size=(640, 640), metadata={**ULTRALYTICS, "task": task})


def test_class_names_missing_unreadable_or_hostile():
    assert specs((1, 3549, 8)).head.class_names == ("class0", "class1", "class2")
    coco = specs((1, 3549, 85))
    assert coco.head.class_names == COCO_CLASS_NAMES
    assert any("COCO's names assumed" in note for note in coco.notes)
    for names in (
        "__import__('os').getcwd()",
        "[" * 100_000,
        "{0: 'a', 5: 'b'}",
        "{" + "0:1," * 400_000 + "}",
    ):
        got = specs((1, 3549, 8), metadata={"names": names})
        assert got.head.class_names[0] == "class0"
        assert any("metadata unreadable" in note for note in got.notes)
    assert specs((1, 3549, 8), metadata={"names": "['x', 'y', 'z']"}).head.class_names == ("x", "y", "z")


def test_a_class_count_that_does_not_match_is_an_error():
    with pytest.raises(SpecError, match=r"2 class names \(given\), but the output has 80 classes"):
        specs((1, 84, 3549), class_names=("a", "b"))


def test_end_to_end_needs_class_names():
    with pytest.raises(SpecError, match="how many classes"):
        specs((1, 300, 6), size=(640, 640))
    got = specs((1, 300, 6), size=(640, 640), class_names=("a", "b", "c"))
    assert got.head.family is HeadFamily.END_TO_END


def test_dynamic_sizes():
    dynamic = (info("images", "batch", 3, "height", "width"),)
    with pytest.raises(SpecError, match="dynamic size") as error:
        specs((None, 84, None), inputs=dynamic)
    assert "--imgsz" in str(error.value)
    got = recognise(
        inputs=dynamic,
        outputs=(info("out", None, 6, None),),
        metadata={**ULTRALYTICS, "imgsz": "[320, 512]"},
        overrides=SpecOverrides(),
    )
    assert (got.input.height_px, got.input.width_px) == (320, 512)
    assert got.head.family is HeadFamily.YOLOV8


def test_a_dynamic_number_of_boxes_with_objectness_is_ambiguous():
    outputs = (info("out", 1, None, 85),)
    inputs = (info("images", 1, 3, None, None),)
    with pytest.raises(SpecError, match="2 ways"):
        recognise(inputs=inputs, outputs=outputs, metadata={}, overrides=SpecOverrides(size=(640, 640)))
    metadata = {"task": "detect"}
    got = recognise(
        inputs=inputs, outputs=outputs, metadata=metadata, overrides=SpecOverrides(size=(640, 640))
    )
    assert got.head.family is HeadFamily.YOLOV5


def test_a_fixed_size_cannot_be_changed():
    with pytest.raises(SpecError, match="fixed at 416 x 416"):
        recognise(
            inputs=(info("images", 1, 3, 416, 416),),
            outputs=(info("out", 1, 3549, 85),),
            metadata={},
            overrides=SpecOverrides(size=(640, 640)),
        )


def test_layouts():
    nhwc = specs((1, 3549, 85), inputs=(info("images", 1, 416, 416, 3),))
    assert nhwc.input.layout is Layout.NHWC
    assert nhwc.input.shape == (1, 416, 416, 3)
    with pytest.raises(SpecError, match="number of channels"):
        specs((1, 3549, 85), inputs=(info("images", 1, 416, 416, 8),))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((info("left", 1, 3, 64, 64), info("right", 1, 3, 64, 64)), r"'left' \(1 x 3 x 64 x 64\), 'right'"),
        ((info("tokens", 1, 128),), "'tokens'"),
        ((info("grey", 1, 1, 64, 64),), "1 channels"),
        ((info("many", 8, 3, 64, 64),), "batch of 8"),
    ],
)
def test_inputs_that_edgeq_does_not_take(inputs, words):
    with pytest.raises(SpecError, match=words):
        specs((1, 10), inputs=inputs)


def test_unknown_heads_list_what_there_is():
    with pytest.raises(SpecError, match=r"'out0' \(1 x 32 x 160 x 160\).*fits no head"):
        specs((1, 32, 160, 160), size=(640, 640))
    with pytest.raises(SpecError, match="does not fit family yolox"):
        specs((1, 3000, 85), family=HeadFamily.YOLOX)


def test_several_outputs():
    # YOLOv5's raw heads beside the decoded output are no candidates; two classifiers are.
    got = specs((1, 25200, 85), (1, 3, 80, 80, 85), (1, 3, 40, 40, 85), size=(640, 640))
    assert got.head.output == "out0"
    with pytest.raises(SpecError, match="--output out1"):
        specs((1, 10), (1, 10), size=(224, 224), preset="unit")
    assert specs((1, 10), (1, 10), size=(224, 224), preset="unit", output="out1").head.output == "out1"
    with pytest.raises(SpecError, match="no output 'out7'"):
        specs((1, 10), size=(224, 224), output="out7")
