"""Values of label files become labels, or a message that says what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phasesam.core.errors import InvalidSettingError, TrainingDataError
from phasesam.training.label_values import (
    UNLABELLED,
    LabelMapping,
    check_task,
    label_integers,
    values_and_counts,
)


@given(
    values=st.sets(st.integers(0, 65_535), min_size=1, max_size=12),
    dtype=st.sampled_from([np.uint16, np.int32, np.uint32, np.int64, np.float64]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_classes_with_gaps_become_indices_and_back(values, dtype, seed):
    known = tuple(sorted(values))
    drawn = np.random.default_rng(seed).integers(-1, len(known), (7, 9))
    if np.dtype(dtype).kind == "u":
        drawn = np.maximum(drawn, 0)
    stored = np.where(drawn < 0, -1, np.take(known, drawn)).astype(dtype)
    labels = LabelMapping(class_values=known).apply(stored)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, drawn)


def test_a_value_may_mean_unlabelled():
    stored = np.array([[0, 128, 255]], np.uint8)
    mapping = LabelMapping(unlabelled=255, class_values=(0, 128))
    assert mapping.apply(stored).tolist() == [[0, 1, UNLABELLED]]
    assert LabelMapping(unlabelled=0).apply(stored).tolist() == [[UNLABELLED, 128, 255]]
    # Even where it is among the classes.
    mapping = LabelMapping(unlabelled=255, class_values=(0, 128, 255))
    assert mapping.apply(stored).tolist() == [[0, 1, UNLABELLED]]


def test_values_of_no_class_are_named():
    with pytest.raises(TrainingDataError, match=r"a\.png: expected .*\[0, 2\], got also \[1, 7\]"):
        LabelMapping(class_values=(0, 2)).apply(np.array([[0, 1, 2, 7]], np.uint8), "a.png")


def test_objects_keep_their_values_and_need_not_be_16_bits():
    stored = np.array([[0, 70_000, -1, 2**31 - 1]], np.int64)
    np.testing.assert_array_equal(LabelMapping().apply(stored), stored)


def test_parts_become_objects_of_their_own():
    stored = np.zeros((5, 9), np.int32)
    stored[1:3, 1:3] = 255
    stored[1:3, 5:7] = 255
    stored[1:3, 7:8] = 3
    stored[4, 0] = -1
    labels = LabelMapping(components=True).apply(stored)
    assert len(np.unique(labels[labels > 0])) == 3
    assert labels[1, 6] != labels[1, 7]
    assert (labels == -1).sum() == 1
    assert (labels == 0).sum() == 45 - 11


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32, np.float64])
def test_whole_numbers_of_any_kind_are_labels(dtype):
    assert label_integers(np.array([[0, 1], [1, 0]], dtype)).tolist() == [[0, 1], [1, 0]]


def test_grey_stored_as_colours_is_accepted():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    np.testing.assert_array_equal(label_integers(rgba), grey)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.eye(4)[..., None] * [1, 0, 0], "grey image in which each class"),
        (np.array([[0.0, 0.5]]), "got 0.5 .*interpolation"),
        (np.array([[0.0, np.nan]]), "-1 where nothing is labelled"),
        (np.array([[0.0, 1e30]]), "2147483647"),
        (np.array([[0, -2]]), "got -2 to 0"),
        (np.array([[0, 2**31]]), "got 0 to 2147483648"),
        (np.arange(24).reshape(2, 3, 4), "colours"),
        (np.zeros((2, 3, 5), int), r"\(2, 3, 5\)"),
        (np.zeros((0, 3), int), r"\(0, 3\)"),
        (np.zeros((2, 2), complex), "complex128"),
    ],
)
def test_what_is_no_label_image(values, message):
    with pytest.raises(TrainingDataError, match=f"m.tif: .*{message}"):
        label_integers(values, "m.tif")


@given(arrays(st.sampled_from([np.uint8, np.uint16, np.int32]), (4, 5)))
@settings(deadline=None, max_examples=30)
def test_counts_are_those_of_numpy(array):
    values, counts = np.unique(array, return_counts=True)
    assert values_and_counts(array) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_tasks():
    assert check_task("semantic") == "semantic"
    with pytest.raises(InvalidSettingError, match="'panoptic'"):
        check_task("panoptic")


def test_options_that_mean_nothing_to_a_task_are_refused():
    assert check_task("semantic", ["matrix"]) == "semantic"
    assert check_task("instance", None, True) == "instance"
    with pytest.raises(InvalidSettingError, match=r"got \['matrix'\] with instance"):
        check_task("instance", ["matrix"])
    with pytest.raises(InvalidSettingError, match="got semantic: classes have no objects"):
        check_task("semantic", None, True)
