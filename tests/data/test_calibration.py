from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeq.data.calibration import CalibrationCheck, check_calibration
from edgeq.data.dataset import open_dataset
from edgeq.data.images import pixel_digest, read_image
from edgeq.errors import CalibrationError
from edgeq.types import Dataset

from .conftest import make_picture, write_image


def folder_of(root: Path, seeds: range) -> Path:
    for seed in seeds:
        write_image(root / f"{seed:03}.png", make_picture(seed))
    return root


def opened(folder: Path) -> Dataset:
    return open_dataset(folder, labels_required=False)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "calibration", range(20))


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "evaluation", range(100, 130))


def test_a_good_set_passes_without_a_word(calibration: Path, evaluation: Path) -> None:
    seen: list[tuple[int, int]] = []
    check = check_calibration(opened(calibration), opened(evaluation), progress=lambda *a: seen.append(a))
    assert check == CalibrationCheck(opened(calibration).samples, check.digests, (), (), (), (), ())
    assert check.digests == tuple(pixel_digest(read_image(s.path)) for s in check.samples)
    assert seen == [(number, 50) for number in range(1, 51)]


def test_identical_file_under_another_name(calibration: Path, evaluation: Path) -> None:
    shutil.copy(calibration / "003.png", evaluation / "other.png")
    with pytest.raises(CalibrationError, match=r"1 of 20 .* \(003\.png = other\.png\)") as caught:
        check_calibration(opened(calibration), opened(evaluation))
    assert "train split" in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "scale", "quality"),
    [(".bmp", 1.0, None), (".jpg", 1.0, 50), (".jpg", 0.5, 80), (".jpg", 1.5, 90), (".webp", 0.75, None)],
)
def test_copies_are_found(
    calibration: Path, evaluation: Path, suffix: str, scale: float, quality: int | None
) -> None:
    picture = cv2.resize(make_picture(7), None, fx=scale, fy=scale)
    params = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    write_image(evaluation / f"copy{suffix}", picture, *params)
    with pytest.raises(CalibrationError, match=rf"007\.png = copy\{suffix}"):
        check_calibration(opened(calibration), opened(evaluation))
    check = check_calibration(opened(calibration), opened(evaluation), allow_overlap=True)
    assert check.overlap == (("007.png", f"copy{suffix}"),)
    assert len(check.samples) == 20
    assert "also in the evaluation set" in check.warnings[0]


def test_a_changed_detail_is_not_a_copy(calibration: Path, evaluation: Path) -> None:
    """A fixed camera: the same scene with another part in view is another image."""
    picture = make_picture(7)
    picture[100:140, 100:140] = 255 - picture[100:140, 100:140]
    write_image(evaluation / "next.png", picture)
    assert check_calibration(opened(calibration), opened(evaluation)).overlap == ()


def test_blank_images_are_not_copies_of_each_other(calibration: Path, evaluation: Path) -> None:
    write_image(calibration / "white.png", np.full((24, 32, 3), 255, np.uint8))
    write_image(evaluation / "nearly.png", np.full((48, 64, 3), 254, np.uint8))
    check = check_calibration(opened(calibration), opened(evaluation))
    assert check.blank == ("white.png",)
    assert "single colour: white.png" in check.warnings[0]
    assert len(check.samples) == 21


def test_duplicates_by_pixels_are_used_once(calibration: Path) -> None:
    write_image(calibration / "005-again.bmp", make_picture(5))
    shutil.copy(calibration / "006.png", calibration / "zzz.png")
    check = check_calibration(opened(calibration), None)
    assert check.duplicates == (("005-again.bmp", "005.png"), ("006.png", "zzz.png"))
    assert len(check.samples) == len(check.digests) == len(set(check.digests)) == 20
    assert "2 calibration images are copies" in check.warnings[0]


def test_few_images(tmp_path: Path) -> None:
    few = check_calibration(opened(folder_of(tmp_path, range(15))), None)
    assert few.warnings[0].startswith("only 15 usable calibration images")
    enough = check_calibration(opened(folder_of(tmp_path, range(16))), None)
    assert enough.warnings == ()


def test_duplicates_do_not_count_as_many(tmp_path: Path) -> None:
    folder_of(tmp_path, range(10))
    for number in range(10):
        shutil.copy(tmp_path / "000.png", tmp_path / f"copy{number}.png")
    assert check_calibration(opened(tmp_path), None).warnings[0].startswith("only 10 usable")


def test_five_percent_unreadable_are_tolerated_and_named(calibration: Path) -> None:
    write_image(calibration / "cut.jpg", make_picture(50))
    data = (calibration / "cut.jpg").read_bytes()
    (calibration / "cut.jpg").write_bytes(data[: len(data) // 2])
    (calibration / "000.png").unlink()
    check = check_calibration(opened(calibration), None)
    assert [item.key for item in check.unreadable] == ["cut.jpg"]
    assert "truncated" in check.unreadable[0].reason
    assert "1 calibration images cannot be read and are left out: cut.jpg" in check.warnings
    assert len(check.samples) == 19
    (calibration / "text.jpg").write_text("not an image")
    with pytest.raises(CalibrationError, match=r"2 of 21 .* more than 5%: cut.jpg .*text.jpg is not"):
        check_calibration(opened(calibration), None)


def test_nothing_readable_and_nothing_at_all(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.jpg").write_bytes(b"junk")
    with pytest.raises(CalibrationError, match="none of the 30"):
        check_calibration(opened(tmp_path), None)
    with pytest.raises(CalibrationError, match="holds no images"):
        check_calibration(Dataset((), (), None, "nowhere"), None)


def test_unreadable_evaluation_images_are_said(calibration: Path, evaluation: Path) -> None:
    (evaluation / "bad.jpg").write_bytes(b"junk")
    check = check_calibration(opened(calibration), opened(evaluation))
    assert check.warnings == (
        "1 evaluation images cannot be read and were not compared with the calibration set",
    )


def test_each_calibration_file_is_read_once(calibration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_set = opened(calibration)
    read: list[str] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or original(path))
    check_calibration(opened_set, None)
    assert sorted(read) == [s.key for s in opened_set.samples]


def test_coco_mini_has_no_false_alarm(shared_data: Path) -> None:
    train = open_dataset(shared_data / "coco-mini", split="train", labels_required=False)
    val = open_dataset(shared_data / "coco-mini")
    check = check_calibration(train, val)
    assert (check.overlap, check.duplicates, check.unreadable, check.blank) == ((), (), (), ())
    assert check.warnings == ()
    with pytest.raises(CalibrationError, match="204 of 204"):
        check_calibration(val, val)


def test_coco_mini_reencoded_copies_are_all_found(shared_data: Path, tmp_path: Path) -> None:
    train = open_dataset(shared_data / "coco-mini", split="train", labels_required=False)
    for sample in train.samples[::4]:
        small = cv2.resize(read_image(sample.path), None, fx=0.65, fy=0.65)
        write_image(tmp_path / sample.path.name, small, cv2.IMWRITE_JPEG_QUALITY, 60)
    check = check_calibration(train, opened(tmp_path), allow_overlap=True)
    assert [ours.rpartition("/")[2] for ours, _ in check.overlap] == [theirs for _, theirs in check.overlap]
    assert len(check.overlap) == 32


def test_128_images_are_quick(shared_data: Path) -> None:
    train = open_dataset(shared_data / "coco-mini", split="train", labels_required=False)
    start = time.process_time()
    check_calibration(train, None)
    # CPU time over all threads, since the machine may be shared: 1.5 s of wall time on two cores.
    assert time.process_time() - start < 1.5 * min(2, os.cpu_count() or 1)
