"""Label files find their partners, and their values mean what was said."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from phasesam.core.errors import (
    FileFormatError,
    InvalidMaskError,
    InvalidSettingError,
    TrainingDataError,
)
from phasesam.evaluation.label_files import (
    ValueChoice,
    classes_of,
    match_label_files,
    read_objects,
    read_phases,
    stray_values,
)

LABELS = np.array([[0, 128, 255], [0, 128, 128]], np.uint8)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, photometric="minisblack")
    return path


def test_folders_are_matched_by_name_and_suffix(tmp_path):
    for name in ("a_labels.tif", "b.png", "c_mask.png", "a_overlay.png", ".hidden.png"):
        write(tmp_path / "found" / name, LABELS)
    for name in ("a.png", "b_gt.tif", "c.png"):
        write(tmp_path / "true" / name, LABELS)
    write(tmp_path / "pictures" / "c.png", LABELS)
    pairs, warnings = match_label_files(
        tmp_path / "found", tmp_path / "true", tmp_path / "pictures"
    )
    assert warnings == ()
    assert [(p.name, p.predicted.path.name, p.truth.path.name) for p in pairs] == [
        ("a", "a_labels.tif", "a.png"),
        ("b", "b.png", "b_gt.tif"),
        ("c", "c_mask.png", "c.png"),
    ]
    assert [p.image is not None for p in pairs] == [False, False, True]
    assert pairs[2].rgb((2, 3))[0, 1].tolist() == [128] * 3
    # No picture, or one of another size: evenly grey.
    assert np.ptp(pairs[0].rgb((2, 3))) == 0
    assert np.ptp(pairs[2].rgb((4, 3))) == 0


def test_images_beside_their_labels_are_not_taken_for_them(tmp_path):
    write(tmp_path / "found" / "a.tif", LABELS + 3)
    write(tmp_path / "found" / "a_labels.tif", LABELS)
    write(tmp_path / "true" / "a.png", LABELS)
    pairs, _ = match_label_files(tmp_path / "found", tmp_path / "true")
    assert pairs[0].predicted.path.name == "a_labels.tif"


def test_what_is_missing_is_never_left_out_in_silence(tmp_path):
    for name in ("a.png", "x.png"):
        write(tmp_path / "found" / name, LABELS)
    for name in ("a.png", "b.png"):
        write(tmp_path / "true" / name, LABELS)
    with pytest.raises(InvalidSettingError, match="1 of 2 are not predicted: b"):
        match_label_files(tmp_path / "found", tmp_path / "true")
    pairs, warnings = match_label_files(tmp_path / "found", tmp_path / "true", skip_missing=True)
    assert [p.name for p in pairs] == ["a"]
    assert "b; left out" in warnings[0]
    assert "without a truth: x" in warnings[1]
    (tmp_path / "found" / "a.png").unlink()
    with pytest.raises(InvalidSettingError, match="2 of 2"):
        match_label_files(tmp_path / "found", tmp_path / "true", skip_missing=True)


def test_two_files(tmp_path):
    found, true = write(tmp_path / "x.tif", LABELS), write(tmp_path / "y.png", LABELS)
    pairs, _ = match_label_files(found, true, found)
    assert [(p.name, p.group) for p in pairs] == [("y", "y")]
    assert pairs[0].image is not None
    with pytest.raises(InvalidSettingError, match="two files or two folders"):
        match_label_files(found, tmp_path)
    with pytest.raises(FileFormatError, match="no such file"):
        match_label_files(found, tmp_path / "nothing.tif")


def test_stacks_are_compared_plane_by_plane_as_one_specimen(tmp_path):
    stack = np.stack([LABELS, LABELS // 2])
    found, true = write(tmp_path / "x.tif", stack), write(tmp_path / "y.tif", stack)
    pairs, _ = match_label_files(found, true)
    assert [(p.name, p.group) for p in pairs] == [("y[0]", "y"), ("y[1]", "y")]
    np.testing.assert_array_equal(pairs[1].truth.read(), LABELS // 2)
    with pytest.raises(InvalidSettingError, match="as many planes"):
        match_label_files(write(tmp_path / "z.tif", stack[:1, :]), true)


def test_two_files_for_one_image_are_refused(tmp_path):
    for name in ("a.png", "a.tif"):
        write(tmp_path / "found" / name, LABELS)
    write(tmp_path / "true" / "a.png", LABELS)
    with pytest.raises(InvalidSettingError, match="one file for a"):
        match_label_files(tmp_path / "found", tmp_path / "true")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSettingError, match="found none"):
        match_label_files(tmp_path / "empty", tmp_path / "true")


def pair_of(tmp_path, predicted, truth):
    found, true = write(tmp_path / "p.tif", predicted), write(tmp_path / "t.tif", truth)
    return match_label_files(found, true)[0][0]


def test_values_with_gaps_become_classes(tmp_path):
    pair = pair_of(tmp_path, LABELS, LABELS)
    assert classes_of([pair], None) == {0: "class 0", 128: "class 128", 255: "class 255"}
    assert classes_of([pair], ["a", "b"], ValueChoice(255)) == {0: "a", 128: "b"}
    assert classes_of([pair], {128: "b", 0: "a"}) == {0: "a", 128: "b"}
    found, true = read_phases(pair, [0, 128, 255], ValueChoice())
    # 255 is a class here, not "no class".
    np.testing.assert_array_equal(found, [[0, 1, 2], [0, 1, 1]])
    np.testing.assert_array_equal(true, found)


def test_unlabelled_and_no_class(tmp_path):
    found, true = read_phases(pair_of(tmp_path, LABELS, LABELS), [0, 128], ValueChoice(255))
    np.testing.assert_array_equal(true, [[0, 1, -1], [0, 1, 1]])
    np.testing.assert_array_equal(found, [[0, 1, -1], [0, 1, 1]])


def test_a_class_may_be_predicted_that_is_never_true(tmp_path):
    pair = pair_of(tmp_path, LABELS, LABELS // 255 * 255)
    assert list(classes_of([pair], None)) == [0, 128, 255]
    assert list(classes_of([pair], None, ValueChoice(by_index=True))) == [0, 255]
    found, true = read_phases(pair, [0, 128, 255], ValueChoice())
    assert (found.max(), true.max()) == (2, 2)
    # What means "unlabelled" in the truth is no class in a prediction.
    assert list(classes_of([pair], None, ValueChoice(128))) == [0, 255]
    found, _ = read_phases(pair, [0, 255], ValueChoice(128))
    np.testing.assert_array_equal(found, [[0, -1, 1], [0, -1, -1]])


def test_indices_taken_for_values_are_noticed(tmp_path):
    predicted = np.array([[0, 1, 2], [255, 1, 1]], np.uint8)
    pair = pair_of(tmp_path, predicted, LABELS)
    assert stray_values([pair], ValueChoice()) == [1, 2]
    assert stray_values([pair], ValueChoice(by_index=True)) == []
    assert stray_values([pair_of(tmp_path, LABELS, LABELS)], ValueChoice()) == []
    # Where a value of the truth means unlabelled, a map may have taken it for the first class.
    sparse = np.array([[0, 1, 2], [2, 1, 1]], np.uint8)
    assert stray_values([pair_of(tmp_path, sparse - 1, sparse)], ValueChoice(0)) == [0]
    assert stray_values([pair_of(tmp_path, sparse, sparse)], ValueChoice(255)) == []
    many = np.arange(900).reshape(30, 30)
    assert stray_values([pair_of(tmp_path, many, many * 0)], ValueChoice()) == []


def test_predictions_by_index(tmp_path):
    predicted = np.array([[0, 1, 2], [255, 1, 1]], np.uint8)
    pair = pair_of(tmp_path, predicted, LABELS)
    found, _ = read_phases(pair, [0, 128, 255], ValueChoice(by_index=True))
    np.testing.assert_array_equal(found, [[0, 1, 2], [-1, 1, 1]])
    with pytest.raises(TrainingDataError, match=r"p\.tif: expected the class values"):
        read_phases(pair, [0, 128, 255], ValueChoice())


def test_objects(tmp_path):
    truth = np.array([[0, 3, 9], [0, 3, 3]], np.int16)
    found, true = read_objects(pair_of(tmp_path, LABELS, truth), unlabelled=9)
    np.testing.assert_array_equal(true, [[0, 3, -1], [0, 3, 3]])
    np.testing.assert_array_equal(found, LABELS)
    with pytest.raises(InvalidMaskError, match="-1"):
        read_objects(pair_of(tmp_path, truth - 1, truth))
