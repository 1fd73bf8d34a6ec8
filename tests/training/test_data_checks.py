"""Bad data are refused or explained before the training starts."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from phasesam.core.errors import CancelledError, TrainingDataError
from phasesam.core.types import PixelSize
from phasesam.training import near_duplicates
from phasesam.training.data_checks import check
from phasesam.training.data_sources import ArrayImage
from phasesam.training.dataset import LabelledImage, TrainingData, from_arrays, read_training_data

SHAPE = (40, 50)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, SHAPE, dtype=np.uint8)


def classes(*values: int) -> np.ndarray:
    """Stripes of equal width."""
    return np.repeat(np.array(values, np.int32), 50 // len(values) + 1)[None, :50].repeat(40, 0)


def objects(n: int = 3) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    for i in range(n):
        labels[5:15, 12 * i : 12 * i + 10] = i + 1
    return labels


def data_of(
    *labels: np.ndarray, task: str = "instance", splits: str = "", **options
) -> TrainingData:
    images = [(f"im{i}", picture(i), array, None) for i, array in enumerate(labels)]
    data = from_arrays(images, task, **options)
    if not splits:
        return data
    names = {"t": "train", "v": "val", "e": "test"}
    moved = tuple(
        LabelledImage(i.name, names[s], i.specimen, i.image, i.labels, i.mapping)
        for i, s in zip(data.images, splits, strict=True)
    )
    return TrainingData(moved, data.task, data.classes, data.class_values)


def said(data: TrainingData, part: str) -> str:
    found = [warning for warning in check(data).warnings if part in warning]
    assert len(found) == 1, check(data).warnings
    return found[0]


def test_good_objects_give_numbers_and_no_warnings():
    summary = check(data_of(*[objects(n) for n in (3, 2, 4, 1)], splits="ttve"))
    assert summary.warnings == ()
    assert summary.n_images == {"train": 2, "val": 1, "test": 1}
    assert summary.n_objects == {"train": 5, "val": 4, "test": 1}
    assert summary.class_fractions == {}
    assert summary.object_pixels == 100
    assert summary.largest_image == SHAPE
    assert summary.labelled_fractions == {"train": 1.0, "val": 1.0, "test": 1.0}


def test_good_classes_give_fractions_of_what_is_labelled():
    sparse = classes(0, 2)
    sparse[:, :25] = -1
    sparse[:10, :25] = 0
    summary = check(data_of(sparse, classes(0, 2), classes(0, 2), task="semantic", splits="tve"))
    assert summary.warnings == ()
    inside = np.bincount(sparse[sparse >= 0])[[0, 2]] / (sparse >= 0).sum()
    assert summary.class_fractions["train"] == pytest.approx(tuple(inside))
    assert summary.labelled_fractions["train"] == pytest.approx((sparse >= 0).mean())
    assert summary.n_objects == {}
    assert summary.object_pixels is None


def test_sizes_that_differ_are_named(tmp_path):
    for name, shape in (("images", (40, 50)), ("labels", (50, 40))):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "steel.tif", np.ones(shape, np.uint8))
    data = read_training_data(tmp_path, "instance")
    with pytest.raises(
        TrainingDataError,
        match=r"steel\.tif with 40 × 50 and steel\.tif with 50 × 40 .*are the axes swapped",
    ):
        check(data)


@pytest.mark.parametrize(
    ("task", "bad", "good", "message"),
    [
        ("instance", objects(0), objects(), "1 training images, got only background"),
        ("instance", objects(0) - 1, objects(), "expected objects .* got no labels"),
        ("semantic", classes(1), classes(0, 1), r"at least two .* only class 1 \(value 1\)"),
        ("semantic", classes(-1), classes(0, 1), "labelled pixels in the 1 training images"),
    ],
)
def test_nothing_to_learn_from(task, bad, good, message):
    with pytest.raises(TrainingDataError, match=message):
        check(data_of(bad, good, task=task, splits="tv"))


def test_no_training_image():
    with pytest.raises(TrainingDataError, match="split train, got 1 in val, 1 in test"):
        check(data_of(objects(), objects(), splits="ve"))


def test_one_image_only():
    data = data_of(objects())
    assert "1 image to learn from" in said(data, "no validation image")
    assert said(data, "no test image")


def test_empty_masks_are_named():
    message = said(data_of(objects(), objects(0), objects(0), splits="tve"), "no object")
    assert "labels of im1, labels of im2" in message
    sparse = said(
        data_of(objects(), objects(0) - 1, objects(), splits="tve"), "no pixel is labelled"
    )
    assert "im1" in sparse


def test_classes_that_are_missing_are_named():
    data = data_of(
        classes(0, 1),
        classes(0, 2),
        classes(0, 1, 2),
        task="semantic",
        splits="tve",
        classes=["matrix", "oxide", "crack"],
    )
    assert "class crack (value 2)" in said(data, "cannot be learnt")
    assert "class oxide (value 1)" in said(data, "not in the validation")


def test_what_maps_leave_out_is_noticed_when_it_is_learnt():
    maps = [classes(0, 1, 255), classes(0, 1, 255)]
    assert "--unlabelled 255" in said(data_of(*maps, task="semantic"), "value 255")
    for others in ([classes(0, 255)] * 2, [classes(0, 7, 255)] * 2, [classes(0, 1, 2)] * 2):
        warnings = check(data_of(*others, task="semantic")).warnings
        assert not [warning for warning in warnings if "value 255" in warning]


def test_binary_masks_of_many_parts():
    mask = (objects(4) > 0).astype(np.int32)
    assert "components" in said(data_of(mask, mask, mask, splits="tve"), "many parts")
    numbered = data_of(mask, mask, mask, components=True)
    assert not [w for w in check(numbered).warnings if "many parts" in w]
    assert check(numbered).n_objects["train"] == 4


def test_stray_pixels():
    labels = objects()
    labels[30, 30] = 9
    assert "1 objects have fewer than 4" in said(
        data_of(labels, objects(), objects(), splits="tve"), "stray"
    )


def test_images_in_two_splits():
    image = picture(7)
    images = [("a", image, objects(), None), ("b", image[:, ::-1], objects(), None)]
    data = from_arrays(images, "instance", fractions=(0.5, 0.5, 0))
    summary = check(data)
    assert [p.kind for p in summary.duplicates] == ["same"]
    assert said(data, "show the same")
    assert check(data, find_duplicates=False).duplicates == ()


def test_too_many_images_to_look_for_overlaps_is_told(monkeypatch):
    data = data_of(*[objects()] * 4, splits="ttve")
    assert not [w for w in check(data).warnings if "overlapping fields" in w]
    monkeypatch.setattr(near_duplicates, "MOST_PAIRS", 4)
    assert "name specimens" in said(data, "overlapping fields were not looked for")
    assert check(data, find_duplicates=False).warnings == ()


def test_a_specimen_in_two_splits():
    data = data_of(objects(), objects(), objects(), splits="tve")
    images = tuple(
        LabelledImage(i.name, i.split, "rod" if n else "other", i.image, i.labels, i.mapping)
        for n, i in enumerate(data.images)
    )
    assert "rod" in said(TrainingData(images, "instance"), "several splits")


def test_blank_images_and_other_magnifications():
    data = data_of(objects(), objects(), objects(), splits="tve")
    images = tuple(
        LabelledImage(
            i.name,
            i.split,
            i.specimen,
            ArrayImage(
                i.name, i.image.array * (n > 0), PixelSize(0.1 * n + 0.1, 0.1 * n + 0.1, "um")
            ),
            i.labels,
            i.mapping,
        )
        for n, i in enumerate(data.images)
    )
    changed = TrainingData(images, "instance")
    assert "im0" in said(changed, "all pixels of the image are equal")
    assert "0.1 to 0.3 um" in said(changed, "pixel sizes differ")


def test_a_data_bar_is_noticed_unless_it_is_unlabelled():
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (300, 400), dtype=np.uint8)
    image[260:] = 0
    image[270:290, 30:200:6] = 255
    labels = np.zeros((300, 400), np.int32)
    labels[50:90, 50:90], labels[280:, 300:] = 1, 2
    data = from_arrays([("sem", image, labels, None)], "instance")
    assert said(data, "data bar")
    for nothing in (-1, 0):
        labels[260:] = nothing
        unlabelled = from_arrays([("sem", image, labels, None)], "instance")
        assert not [w for w in check(unlabelled).warnings if "data bar" in w]
        assert check(unlabelled).largest_image == (260, 400)


def test_images_without_a_finite_value_are_named():
    nan = np.full(SHAPE, np.nan)
    data = from_arrays([("lost", nan, objects(), None)], "instance")
    with pytest.raises(TrainingDataError, match="lost: expected at least one finite"):
        check(data)


def test_warnings_of_the_reader_are_kept_and_long_lists_cut():
    data = data_of(*[objects(0)] * 8, objects(), splits="t" * 7 + "vt")
    message = said(data, "no object")
    assert message.count("labels of") == 5
    assert "and 3 more" in message


def test_progress_and_stop():
    data = data_of(objects(), objects())
    seen = []
    check(data, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    with pytest.raises(CancelledError):
        check(data, should_stop=lambda: True)
