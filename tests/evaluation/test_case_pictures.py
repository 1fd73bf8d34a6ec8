"""Which cases are shown, and that their pictures show what is right and wrong."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.core.mask_set import MaskSet
from phasesam.evaluation.case_pictures import (
    choose_cases,
    click_picture,
    instance_picture,
    phase_picture,
)
from phasesam.formats.overlay import PALETTE

GREY = np.full((40, 60, 3), 100, np.uint8)
GAP = 6


def panels(picture: np.ndarray, rows: int = 1, columns: int = 4) -> list[np.ndarray]:
    height = (picture.shape[0] - (rows - 1) * GAP) // rows
    width = (picture.shape[1] - (columns - 1) * GAP) // columns
    return [
        picture[i * (height + GAP) :, j * (width + GAP) :][:height, :width]
        for i in range(rows)
        for j in range(columns)
    ]


def test_best_median_and_worst():
    assert choose_cases([0.5, 0.9, 0.1, 0.7, 0.3]) == {"best": 1, "median": 0, "worst": 2}
    assert choose_cases([0.5, np.nan, 0.1, 0.7]) == {"best": 3, "median": 0, "worst": 2}
    assert choose_cases([0.2, 0.4]) == {"best": 1, "worst": 0}
    assert choose_cases([np.nan, 0.4]) == {"only": 1}
    assert choose_cases([np.nan]) == {}


def test_phases_are_coloured_and_errors_marked():
    truth = np.zeros((40, 60), np.int32)
    truth[:, 20:40] = 1
    truth[:10] = -1
    predicted = np.zeros_like(truth)
    predicted[:, 20:50] = 1
    image, shown, found, wrong = panels(phase_picture(GREY, truth, predicted))
    np.testing.assert_array_equal(image, GREY)
    assert not np.array_equal(shown[20, 30], GREY[0, 0])
    np.testing.assert_array_equal(shown[20, 10], GREY[0, 0])
    np.testing.assert_array_equal(found[20, 45], shown[20, 30])
    np.testing.assert_array_equal(wrong[20, 45], PALETTE[5])
    assert not np.array_equal(wrong[20, 30], PALETTE[5])
    # Unlabelled is neither right nor wrong.
    np.testing.assert_array_equal(wrong[5, 45], [128] * 3)
    np.testing.assert_array_equal(shown[5, 30], [128] * 3)


def test_thin_errors_stay_visible_in_large_images():
    truth = np.zeros((1200, 1600), np.int32)
    predicted = truth.copy()
    predicted[:, 801] = 1
    rgb = np.full((1200, 1600, 3), 100, np.uint8)
    picture = phase_picture(rgb, truth, predicted)
    wrong = panels(picture)[3].astype(int)
    redness = wrong[..., 0] - wrong[..., 2]
    assert picture.shape == (289, 4 * 385 + 3 * GAP, 3)
    assert (redness.max(axis=1) > 40).all()


@pytest.mark.parametrize("as_set", [False, True])
def test_objects_found_missed_and_false(as_set):
    truth = np.zeros((40, 60), np.int32)
    truth[2:12, 2:12], truth[2:12, 22:32] = 1, 2
    truth[30:, :] = -1
    predicted = np.zeros_like(truth)
    predicted[2:12, 2:12], predicted[15:25, 40:50], predicted[32:38, 2:8] = 5, 6, 7
    answer = MaskSet.from_labels(predicted) if as_set else predicted
    verdict = panels(instance_picture(GREY, truth, answer))[3].astype(int)

    def nearest_colour(y, x):
        return int(np.abs(PALETTE.astype(int) - verdict[y, x]).sum(axis=1).argmin())

    assert nearest_colour(5, 5) == 1
    assert nearest_colour(5, 25) == 3
    assert nearest_colour(20, 45) == 5
    np.testing.assert_array_equal(verdict[35, 5], [128] * 3)


def test_clicks_are_shown_in_the_colours_of_their_objects():
    truth = np.zeros((40, 60), np.int32)
    truth[2:12, 2:12], truth[2:12, 22:32] = 4, 9
    half = MaskSet.from_masks([truth == 4, (truth == 9) & (np.arange(60) < 27)])
    whole = MaskSet.from_masks([truth == 4, truth == 9])
    image, shown, first, second = panels(click_picture(GREY, truth, [half, whole]))
    np.testing.assert_array_equal(image, GREY)
    np.testing.assert_array_equal(second, shown)
    np.testing.assert_array_equal(first[5, 23], shown[5, 23])
    np.testing.assert_array_equal(first[5, 30], GREY[0, 0])


def test_wide_images_are_arranged_in_two_columns():
    rgb = np.full((30, 60, 3), 100, np.uint8)
    empty = np.zeros((30, 60), np.int32)
    picture = phase_picture(rgb, empty, empty)
    assert picture.shape == (2 * 30 + GAP, 2 * 60 + GAP, 3)
    # The last panel is the pale one.
    assert panels(picture, 2, 2)[3].min() > 150
    sets = [MaskSet(shape=(30, 60))] * 4
    assert click_picture(rgb, empty, sets).shape == (3 * 30 + 2 * GAP, 2 * 60 + GAP, 3)
    assert click_picture(GREY, truth_of(GREY), sets_of(GREY)).shape[1] == 3 * 60 + 2 * GAP


def truth_of(rgb):
    return np.zeros(rgb.shape[:2], np.int32)


def sets_of(rgb):
    return [MaskSet(shape=rgb.shape[:2])] * 4


def test_small_images_are_not_enlarged():
    empty = np.zeros((40, 60), np.int32)
    assert phase_picture(GREY, empty, empty).shape == (40, 4 * 60 + 3 * GAP, 3)
    assert instance_picture(GREY, empty, empty).shape == (40, 4 * 60 + 3 * GAP, 3)
